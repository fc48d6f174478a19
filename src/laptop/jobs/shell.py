"""IPython without a terminal: what runs the cells of a notebook, and keeps what they put out."""

import atexit
import base64
import builtins
import contextlib
import io
import sys
import types
import warnings
import weakref
from collections.abc import Iterator
from typing import Any

import matplotlib
import nbformat
from IPython.core.compilerop import CachingCompiler
from IPython.core.displayhook import DisplayHook
from IPython.core.displaypub import DisplayPublisher
from IPython.core.interactiveshell import InteractiveShell
from IPython.core.pylabtools import select_figure_formats
from traitlets import Type
from traitlets.config import Config

_INLINE_BACKEND = "module://matplotlib_inline.backend_inline"


class _Compiler(CachingCompiler):
    """Names a cell's code by the notebook's file, so that errors and warnings point there."""

    file = "<notebook>"

    def get_code_name(self, raw_code: str, transformed_code: str, number: int) -> str:
        return self.file

    def cache(self, transformed_code: str, number: int = 0, raw_code: str | None = None) -> str:
        return self.file  # its lines are read from the file itself


class _DisplayHook(DisplayHook):
    """Records the value of a cell's last expression."""

    def write_output_prompt(self) -> None:
        pass

    def write_format_data(self, format_dict: dict, md_dict: dict | None = None) -> None:
        self.shell.record("execute_result", data=_texts(format_dict), metadata=md_dict or {})

    def finish_displayhook(self) -> None:
        self._is_active = False


class _DisplayPublisher(DisplayPublisher):
    """Records what a cell displays."""

    def publish(self, data: dict, metadata: dict | None = None, **_: Any) -> None:
        metadata = dict(metadata or {})
        if "image/png" in data:
            metadata["image/png"] = {"alt": "Picture drawn by this cell"} | metadata.get("image/png", {})
        self.shell.record("display_data", data=_texts(data), metadata=metadata)

    def clear_output(self, wait: bool = False) -> None:
        self.shell.outputs.clear()


class Shell(InteractiveShell):
    """IPython without a terminal, a history, a profile folder or its own syntax; what cells put out goes to `outputs`."""

    compiler_class = Type(_Compiler)
    displayhook_class = Type(_DisplayHook)
    display_pub_class = Type(_DisplayPublisher)

    def record(self, output_type: str, **fields: Any) -> None:
        """Keep one output, as nbformat has it."""
        self.outputs.append(nbformat.v4.new_output(output_type, **fields))

    def transform_cell(self, raw_cell: str) -> str:
        return raw_cell

    def init_ipython_dir(self, ipython_dir: Any) -> None:
        pass

    def init_profile_dir(self, profile_dir: Any) -> None:
        pass

    def init_virtualenv(self) -> None:
        pass

    def init_prompts(self) -> None:
        pass

    def showtraceback(self, *_: Any, **__: Any) -> None:
        pass  # errors are taken from the cell's result

    showsyntaxerror = showindentationerror = showtraceback


class _Stream(io.TextIOBase):
    """Stands in for stdout or stderr; foreachBatch functions print into it from their threads too."""

    encoding = "utf-8"

    def __init__(self, shell: Shell, name: str) -> None:
        # A thread keeps the stderr that there was when it began, and some of Py4J's outlive the notebook: all that it held would stay.
        self._shell, self._name = weakref.ref(shell), name

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        shell = self._shell()
        outputs = shell.outputs if shell else []
        last = outputs[-1] if outputs else None
        if last and last.output_type == "stream" and last.name == self._name:
            last.text += text
        elif text and shell:
            shell.record("stream", name=self._name, text=text)
        return len(text)


@contextlib.contextmanager
def running_shell() -> Iterator[Shell]:
    """A fresh IPython shell with a fresh `__main__`; the process is afterwards as it was before."""
    import matplotlib.pyplot as plt
    from matplotlib_inline.backend_inline import flush_figures

    backend, interactive = matplotlib.get_backend(), matplotlib.is_interactive()
    builtins_before, path_before = dict(vars(builtins)), list(sys.path)
    config = Config(InteractiveShell={"cache_size": 0, "colors": "nocolor"}, HistoryManager={"enabled": False, "hist_file": ":memory:"})
    shell = Shell.instance(user_module=types.ModuleType("__main__"), config=config)
    shell.outputs = []
    # IPython's advice for sys.exit at a prompt tells a notebook's reader nothing.
    warnings.filterwarnings("ignore", "To exit: use", UserWarning)
    try:
        plt.close("all")
        matplotlib.use(_INLINE_BACKEND)
        matplotlib.interactive(True)  # else the end of a cell shows no figure
        select_figure_formats(shell, {"png"})
        shell.events.register("post_execute", flush_figures)
        with contextlib.redirect_stdout(_Stream(shell, "stdout")), contextlib.redirect_stderr(_Stream(shell, "stderr")):
            yield shell
    finally:
        plt.close("all")
        matplotlib.use(backend)
        matplotlib.interactive(interactive)
        shell.restore_sys_module_state()
        atexit.unregister(shell.atexit_operations)
        shell.history_manager.outputs.clear()  # one for all shells, which would keep what every cell of this process has shown
        Shell.clear_instance()
        sys.path[:] = path_before
        for name in ("__IPYTHON__", "display"):
            if name not in builtins_before:
                vars(builtins).pop(name, None)


def _texts(data: dict[str, Any]) -> dict[str, Any]:
    """Display data with pictures as the base64 text that notebooks hold."""
    return {mime: base64.b64encode(value).decode() if isinstance(value, bytes) else value for mime, value in data.items()}
