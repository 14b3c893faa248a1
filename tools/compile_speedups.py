"""Compile the modules of platformctl/speedups.py with mypyc. Needs a C compiler and Python's headers.

python tools/compile_speedups.py            build when the present build is of other sources
python tools/compile_speedups.py --if-able  the same, but a machine that cannot compile is no error
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from platformctl import speedups  # noqa: E402

SETUP = """
import sys
from mypyc.build import mypycify
from setuptools import setup
setup(
    name="platformctl-speedups",
    ext_modules=mypycify(sys.argv.pop().split(","), opt_level="3", group_name="platformctl_hot"),
)
"""


def cannot() -> str:
    """Why this machine cannot compile; empty when it can."""
    if shutil.which("cc") is None and shutil.which("gcc") is None:
        return "there is no C compiler"
    if not (Path(sysconfig.get_path("include")) / "Python.h").exists():
        return f"Python's headers are missing (Debian: python{sys.version_info[0]}.{sys.version_info[1]}-dev)"
    return ""


def build(target: Path) -> None:
    """Compile in a copy, then put the result in place at once."""
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        shutil.copytree(
            ROOT / "platformctl",
            work / "platformctl",
            ignore=shutil.ignore_patterns("_compiled", "__pycache__", "*.so"),
        )
        (work / "setup.py").write_text(SETUP)
        (work / "mypy.ini").write_text("[mypy]\nstrict = True\n")
        sources = ",".join(f"platformctl/{module}" for module in speedups.MODULES)
        command = [sys.executable, "setup.py", "--quiet", "build_ext", "--build-lib", "out", sources]
        done = subprocess.run(command, cwd=work, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"compiling failed:\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
        fresh = work / "fresh"
        for library in (work / "out").rglob("*.so"):
            inside = library.relative_to(work / "out")
            parts = inside.parts[1:] if inside.parts[0] == "platformctl" else inside.parts
            (fresh / Path(*parts)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(library, fresh / Path(*parts))
        (fresh / "digest").write_text(speedups.digest() + "\n", "ascii")
        shutil.rmtree(target, ignore_errors=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(fresh, target)


def main() -> int:
    if speedups.state() == "compiled":
        return 0
    why = cannot()
    if why:
        print(f"speedups: not compiled, {why}; the Python modules are used")
        return 0 if "--if-able" in sys.argv else 1
    build(speedups.FOLDER)
    print("speedups: compiled")
    return 0


if __name__ == "__main__":
    sys.exit(main())
