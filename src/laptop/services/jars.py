"""The jars that pyspark does not bring: Delta and the Kafka source for Spark, and the Kafka broker; fetched once per user by Ivy.

Ivy is inside pyspark, so nothing else has to be installed. A set of jars is one folder of the cache, renamed into place when it is
whole; what is in it is written into its `jars.json`, so that a folder somebody has thinned out is fetched again.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from xml.sax.saxutils import quoteattr

from filelock import FileLock

from laptop.services.java import cache_dir, java_home
from streaming_pipeline.core.errors import PipelineError

SPARK_VERSION = "4.1.1"
SPARK_COORDINATES = (
    "io.delta:delta-spark_4.1_2.13:4.4.0",
    f"org.apache.spark:spark-sql-kafka-0-10_2.13:{SPARK_VERSION}",
)
BROKER_COORDINATES = (
    "org.apache.kafka:kafka_2.13:4.2.0",
    "org.slf4j:slf4j-simple:1.7.36",  # the slf4j line that this Kafka uses; without a binding it would log nothing
)
_MANIFEST = "jars.json"


def spark_jars(progress: Callable[[str], None] | None = None) -> list[Path]:
    """Delta and Spark's Kafka source with all they need beyond what pyspark ships; `progress` is called with a line before a download.

    Raises `PipelineError` where the installed pyspark is of another version than these jars, or where they cannot be fetched.
    """
    import pyspark

    if pyspark.__version__ != SPARK_VERSION:
        raise PipelineError(f"pyspark {pyspark.__version__} is installed, but the jars are for {SPARK_VERSION}: run `uv sync`.")
    shipped = {match[1] for jar in _pyspark_jars().iterdir() if (match := re.fullmatch(r"(.+?)-\d+\..*\.jar", jar.name))}
    return _jars("spark", SPARK_COORDINATES, sorted(shipped), progress or _line_on_terminal)


def broker_jars(progress: Callable[[str], None] | None = None) -> list[Path]:
    """The Kafka broker with all it needs: a class path of its own, because Spark carries another kafka-clients."""
    return _jars("broker", BROKER_COORDINATES, [], progress or _line_on_terminal)


def _line_on_terminal(line: str) -> None:
    if sys.stderr.isatty():
        print(line, file=sys.stderr)


def _pyspark_jars() -> Path:
    """The folder of the jars inside the installed pyspark (found without starting Spark)."""
    import pyspark

    return Path(pyspark.__file__).parent / "jars"


def _jars(name: str, coordinates: tuple[str, ...], excluded: list[str], progress: Callable[[str], None]) -> list[Path]:
    """The jars of one set, from the cache or else fetched into it; safe for several processes at once."""
    key = hashlib.sha256(json.dumps([coordinates, excluded]).encode()).hexdigest()[:12]
    folder = cache_dir() / "jars" / f"{name}-{key}"
    found = _whole(folder)
    if found:
        return found
    try:
        folder.parent.mkdir(exist_ok=True)
        with FileLock(folder.parent / f"{name}.lock"):
            found = _whole(folder)  # another process may have fetched it while this one waited
            if found:
                return found
            for left in folder.parent.glob(f".{name}-*"):  # by a process that was killed: under this lock nobody else is at it
                shutil.rmtree(left, ignore_errors=True)
            progress(f"Fetching {' and '.join(coordinates)} (once, about half a minute) …")
            fresh = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=folder.parent))
            try:
                _fetch(coordinates, excluded, fresh)
                shutil.rmtree(folder, ignore_errors=True)
                (fresh / "lib").rename(folder)
            finally:
                shutil.rmtree(fresh, ignore_errors=True)
    except OSError as error:
        raise PipelineError(
            f"The jars cannot be kept in {folder.parent} ({error.strerror or error}): free some space, or set STREAMING_PIPELINE_CACHE."
        ) from None
    return _whole(folder)


def _whole(folder: Path) -> list[Path]:
    """The jars of a fetched set, or nothing where one of them is missing or not as it was fetched."""
    try:
        sizes = json.loads((folder / _MANIFEST).read_text())
        changed = any((folder / name).stat().st_size != size for name, size in sizes.items())
    except (OSError, ValueError, AttributeError, TypeError):  # none, half of one, or something else
        return []
    return [] if changed else [folder / name for name in sizes]


def _fetch(coordinates: tuple[str, ...], excluded: Iterable[str], work: Path) -> None:
    """Run Ivy in the folder `work`, so that the jars and their manifest are in `work/lib` afterwards; Ivy's own cache goes there too."""
    (work / "lib").mkdir()
    settings = os.environ.get("STREAMING_PIPELINE_IVY_SETTINGS")
    if settings and not Path(settings).is_file():
        raise PipelineError(f"STREAMING_PIPELINE_IVY_SETTINGS names {settings}, which is not a file: give the path of an ivysettings.xml.")
    if not settings:
        settings = work / "ivysettings.xml"
        settings.write_text(_ivy_settings(os.environ.get("DEFAULT_ARTIFACT_REPOSITORY")), encoding="utf-8")
    (work / "ivy.xml").write_text(_ivy_module(coordinates, excluded), encoding="utf-8")
    [ivy] = _pyspark_jars().glob("ivy-*.jar")
    command: list[str | Path] = [java_home() / "bin" / "java", "-Xmx256m", "-cp", ivy, "org.apache.ivy.Main"]
    command += ["-settings", Path(settings).absolute(), "-cache", work / "cache", "-ivy", "ivy.xml", "-confs", "default"]
    command += ["-retrieve", "lib/[artifact]-[revision](-[classifier]).[ext]"]
    run = subprocess.run(command, cwd=work, capture_output=True, text=True, errors="replace", check=False)
    jars = sorted((work / "lib").glob("*.jar"))
    if run.returncode or not jars:
        raise PipelineError(
            f"The jars {', '.join(coordinates)} could not be fetched ({_ivy_reason(run.stdout + run.stderr)}): connect to the internet "
            "once, or name a Maven repository that you reach in DEFAULT_ARTIFACT_REPOSITORY or STREAMING_PIPELINE_IVY_SETTINGS."
        )
    (work / "lib" / _MANIFEST).write_text(json.dumps({jar.name: jar.stat().st_size for jar in jars}))


def _ivy_settings(repository: str | None) -> str:
    root = f" root={quoteattr(repository)}" if repository else ""  # without it: the central repository, as Ivy knows it
    return (
        '<ivysettings><settings defaultResolver="main"/><resolvers>'
        f'<ibiblio name="main" m2compatible="true" usepoms="true"{root}/></resolvers></ivysettings>'
    )


def _ivy_module(coordinates: tuple[str, ...], excluded: Iterable[str]) -> str:
    dependencies = "".join(
        f'<dependency org="{group}" name="{artifact}" rev="{version}" conf="default->default"/>'
        for group, artifact, version in (coordinate.split(":") for coordinate in coordinates)
    )
    excludes = "".join(f"<exclude module={quoteattr(module)}/>" for module in excluded)
    return (
        '<ivy-module version="2.0"><info organisation="streaming-pipeline" module="jars"/><configurations><conf name="default"/>'
        f"</configurations><dependencies>{dependencies}{excludes}</dependencies></ivy-module>"
    )


def _ivy_reason(output: str) -> str:
    """The line of Ivy's output that says most about why it failed; a password inside a repository's address is left out."""
    for pattern in (
        r"Server access error.*",
        r"Host \S+ not found",
        r"\[FAILED\s*\] .*",
        r"module not found: .*",
        r"\S*(Error|Exception).*",
    ):
        if found := re.search(pattern, output):
            return re.sub(r"//[^/@\s]*@", "//", found[0]).strip()[:200]
    return "Ivy said nothing"
