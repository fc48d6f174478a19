"""Where is a Java that Spark 4.1 and Kafka 4 run on? The machine's own if it has one, else one fetched into the user's cache."""

import os
import re
import shutil
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock

from streaming_pipeline.core.errors import PipelineError

VERSIONS = (17, 21)
"""What Spark 4.1 supports."""

USUAL_PLACES = (
    "/usr/lib/jvm/*",
    "/usr/java/*",
    "/opt/java/*",
    "/Library/Java/JavaVirtualMachines/*/Contents/Home",
    "/opt/homebrew/opt/openjdk@*",
    "/usr/local/opt/openjdk@*",
    "~/.sdkman/candidates/java/*",
    "~/.jdks/*",
)

_NO_MEMORY = re.compile(r"^.*(?:(?:[Cc]ould not|[Ff]ailed to) (?:reserve|allocate)|[Ii]nsufficient memory).*$", re.MULTILINE)


def cache_dir() -> Path:
    """The folder for what is fetched once per user: `STREAMING_PIPELINE_CACHE`, else the user's cache folder. Made if missing."""
    own = os.environ.get("STREAMING_PIPELINE_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    folder = Path(own or Path(base, "streaming-pipeline")).expanduser().absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PipelineError(
            f"The cache folder {folder} cannot be made ({error.strerror}): set STREAMING_PIPELINE_CACHE to a folder of yours."
        ) from None
    return folder


def java_home() -> Path:
    """The home folder of a Java 17 or 21: from JAVA_HOME, PATH or the usual places, else Temurin 17, fetched once.

    Raises `PipelineError` where there is none and none can be fetched.
    """
    for command in _candidates():
        home = _home_of(command)
        if home:
            return home
    return _fetched_home()


def _candidates() -> Iterator[Path]:
    """The `java` commands of this machine, the most wanted first."""
    if os.environ.get("JAVA_HOME"):
        yield Path(os.environ["JAVA_HOME"], "bin", "java")
    on_path = shutil.which("java")
    if on_path:
        yield Path(on_path)
    for pattern in USUAL_PLACES:
        place = Path(pattern).expanduser()
        anchor = Path(place.anchor)
        for home in sorted(anchor.glob(str(place.relative_to(anchor)))):
            yield home / "bin" / "java"


def _home_of(command: Path) -> Path | None:
    """The home of a `java` command that runs and is of a version we can use; it is asked itself, because PATH may hold a shim."""
    try:
        told = subprocess.run(
            [command, "-XshowSettings:properties", "-version"], capture_output=True, text=True, errors="replace", timeout=30, check=True
        ).stderr
    except subprocess.CalledProcessError as error:
        if found := _NO_MEMORY.search(error.stdout + error.stderr):
            raise PipelineError(f"{command} cannot start ({found[0].strip()}): let it have more memory, see `ulimit -v`.") from None
        return None
    except (OSError, subprocess.SubprocessError):
        return None
    version = re.search(r"^\s*java\.specification\.version = (\d+)\s*$", told, re.MULTILINE)
    home = re.search(r"^\s*java\.home = (.+?)\s*$", told, re.MULTILINE)
    if not version or not home or int(version[1]) not in VERSIONS:
        return None
    return Path(home[1])


def _fetched_home() -> Path:
    """Temurin 17 in the user's cache, fetched if it is not there yet (`CJDK_INDEX_URL` names another index than the public one)."""
    import cjdk

    folder = cache_dir() / "jdk"
    advice = "Install Java 17 or 21 (or set JAVA_HOME to one), or connect to the internet once so that it can be fetched."
    try:
        folder.mkdir(exist_ok=True)
        with FileLock(folder / "fetch.lock"):
            # Under this lock nobody else fetches: what is here was left by a process that was killed, and cjdk would wait for it.
            shutil.rmtree(folder / "v0" / "fetching", ignore_errors=True)
            home = cjdk.java_home(
                vendor="temurin",
                version="17",
                cache_dir=folder,
                index_ttl=float(2**62),  # a JDK that is here is used without asking the index again: later starts work offline
                progress=sys.stderr.isatty(),
            )
    except (cjdk.CjdkError, OSError, EOFError, zlib.error) as error:
        raise PipelineError(f"No Java 17 or 21 was found, and Temurin 17 could not be fetched ({_short(error)}). {advice}") from None
    usable = _home_of(home / "bin" / "java")
    if not usable:
        raise PipelineError(f"No Java 17 or 21 was found, and the one fetched into {folder} does not run here: delete it. {advice}")
    return usable


def _short(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 200 else text[:200] + "…"
