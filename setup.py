"""Builds the package: pyproject.toml declares what it holds, here its kernels are compiled.

csrc becomes one library, `rnr_kernels/_C.abi3.so`, on LibTorch's stable interface: built beside any
torch >= 2.11 it runs with any other, and it needs no header of Python's. ninja runs the compiler,
because each instruction set has flags of its own. CXX, CXXFLAGS and LDFLAGS are honoured.

The package is complete without the library, only slower. So what is missing to build it (a
compiler, ninja, torch) is told in one line and is no reason to fail; an error of the compiler is,
because nobody looks for a slow package behind a build that passed. RNR_BUILD_EXT=0 leaves the
library out, RNR_BUILD_EXT=1 insists on it.

Kernels for NVIDIA GPUs (csrc/cuda) join it where nvcc is found and torch is a CUDA build, or with
RNR_CUDA=1 beside any torch; RNR_CUDA=0 leaves them out. A library that holds them still serves
where there is no GPU.
"""

import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

TORCH_VERSION = (2, 11)
BUILD_COMMANDS = {"bdist_wheel", "build", "build_ext", "editable_wheel", "install"}

CSRC = Path("csrc")
KNOW_TORCH = (
    "binding.cpp",
    "binding_automata.cpp",
    "binding_linear.cpp",
    "binding_statistics.cpp",
)
COMPILED_ONCE = (*KNOW_TORCH, "cpu/automata.cpp", "cpu/dispatch.cpp", "cpu/state.cpp")

FLAGS = (
    "-std=c++17 -O3 -fPIC -fvisibility=hidden -Wall -Wextra -Wno-psabi "
    # GCC 12 sees uninitialised values in its own intrinsics; Clang does not know the warning.
    "-Wno-uninitialized -Wno-maybe-uninitialized -Wno-unknown-warning-option "
    # Every rounding is specified: no a * b + c may be fused that the source does not fuse.
    "-ffp-contract=off -fno-math-errno -fno-trapping-math"
)
CUDA_FLAGS = "-std=c++17 -O3 --fmad=false -Xcompiler -fPIC,-fvisibility=hidden"
GPUS = {"sm_80": "compute_80", "sm_90a": "compute_90a", "compute_90": "compute_90"}
"""What nvcc compiles for, and from which architecture; newer GPUs compile the last one anew."""
AVX2 = "-mavx2 -mfma -mf16c -mpopcnt -mbmi2"
AVX512 = f"{AVX2} -mavx512f -mavx512bw -mavx512dq -mavx512vl -mprefer-vector-width=512"


def instruction_sets() -> dict[str, str]:
    """The flags of each set, as csrc/cpu/dispatch.cpp expects them of this machine's compiler.

    The plainest comes first: of an inline function that several sets hold the linker keeps the
    first, which must run on every processor.
    """
    if platform.machine() in ("aarch64", "arm64"):
        return {"neon": ""}  # part of every such processor
    sets = {"portable": ""}
    if platform.machine() in ("x86_64", "AMD64"):
        sets |= {"avx2": AVX2, "avx512": AVX512}
    return sets


def torch_folder() -> Path | None:
    """Where a torch that is new enough stands; importing it would take seconds."""
    try:
        torch = distribution("torch")
    except PackageNotFoundError:
        return None
    if tuple(map(int, torch.version.split(".")[:2])) < TORCH_VERSION:
        return None
    return Path(str(torch.locate_file("torch")))


def compiler() -> list[str] | None:
    """The C++ compiler and its first arguments."""
    names = [os.environ["CXX"]] if os.environ.get("CXX") else ["c++", "g++", "clang++"]
    found = (shlex.split(name) for name in names)
    return next((command for command in found if shutil.which(command[0])), None)


def ninja() -> str | None:
    """The command, which the package `ninja` puts beside Python's others."""
    folders = [sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)]
    return shutil.which("ninja", path=os.pathsep.join(folders))


def nvcc() -> str | None:
    """The CUDA compiler."""
    folders = [
        f"{os.environ[name]}/bin" for name in ("CUDA_HOME", "CUDA_PATH") if name in os.environ
    ]
    folders += [os.environ.get("PATH", os.defpath), "/usr/local/cuda/bin"]
    return shutil.which("nvcc", path=os.pathsep.join(folders))


def cuda_libraries() -> str:
    """The linker's flags for CUDA's runtime, which nvcc tells."""
    command = [str(nvcc()), "--dryrun", "-x", "cu", os.devnull, "-c", "-o", os.devnull]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    folders = re.search(r"^#\$ LIBRARIES=(.*)$", told, re.MULTILINE)
    return f"{folders[1] if folders else ''} -lcudart_static -ldl -lrt -lpthread".strip()


def why_no_cuda(wish: str) -> str | None:
    """Why the library gets no kernels for GPUs, or None."""
    if wish == "0":
        return "RNR_CUDA=0"
    if nvcc() is None:
        return "there is no nvcc"
    torch = torch_folder()
    if wish != "1" and not (torch and (torch / "lib" / "libtorch_cuda.so").exists()):
        return "torch is no CUDA build"
    return None


def why_not() -> str | None:
    """Why the library cannot be built here, or None."""
    if os.name == "nt":
        return "Windows is not supported yet"
    if compiler() is None:
        return "there is no C++ compiler (g++ or clang++, or what CXX names)"
    if ninja() is None:
        return "there is no ninja; pip install ninja"
    if torch_folder() is None:
        wanted = ".".join(map(str, TORCH_VERSION))
        return (
            f"the build sees no torch >= {wanted}; pip install --no-build-isolation shows it yours"
        )
    return None


class NinjaBuild(build_ext):  # type: ignore[misc]
    """Compiles csrc with ninja, which knows what is up to date."""

    def build_extension(self, ext: Extension) -> None:
        library = Path(self.get_ext_fullpath(ext.name)).resolve()
        folder = Path(self.build_temp).resolve()
        library.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(parents=True, exist_ok=True)
        rules = folder / "build.ninja"
        rules.write_text(ninja_rules(folder, library), encoding="utf-8")
        try:
            subprocess.run([str(ninja()), "-f", str(rules)], check=True)
        except subprocess.CalledProcessError:
            sys.exit(
                "error: the kernels do not compile; RNR_BUILD_EXT=0 installs the package without, "
                "RNR_CUDA=0 without those for GPUs alone"
            )


def ninja_rules(folder: Path, library: Path) -> str:
    """build.ninja: objects in `folder`, one for each source and instruction set."""
    with_cuda = why_no_cuda(cuda_wish) is None
    torch = shlex.quote(str(torch_folder())).replace("$", "$$")
    only_torch = (
        f"-DTORCH_TARGET_VERSION=0x{TORCH_VERSION[0]:02x}{TORCH_VERSION[1]:02x}000000000000ULL"
    )
    undefined = "" if sys.platform == "darwin" else "-Wl,--no-undefined"
    for_gpus = f"-DRNR_CUDA -DRNR_GPU_TARGETS={','.join(GPUS)}" if with_cuda else ""
    lines = [
        f"builddir = {folder}",
        f"cxx = {shlex.join(compiler() or [])}",
        f"flags = {FLAGS} {from_environment('CXXFLAGS')}",
        f"torch = {only_torch} -isystem {torch}/include {for_gpus}",
        f"ldflags = -L{torch}/lib -ltorch_cpu {undefined} {from_environment('LDFLAGS')} "
        f"{cuda_libraries() if with_cuda else ''}",
        "rule compile",
        "  command = $cxx $flags $more -MMD -MF $out.d -c $in -o $out",
        "  depfile = $out.d",
        "  deps = gcc",
        "  description = $in $set",
        "rule link",
        "  command = $cxx $flags -shared $in $ldflags -o $out",
        "  description = $out",
    ]
    if with_cuda:
        codes = " ".join(f"-gencode arch={source},code={gpu}" for gpu, source in GPUS.items())
        lines += [
            f"nvcc = {shlex.quote(str(nvcc()))} -ccbin {shlex.quote((compiler() or [''])[0])}",
            "rule compile_cuda",
            f"  command = $nvcc {CUDA_FLAGS} {codes} -MMD -MF $out.d -c $in -o $out",
            "  depfile = $out.d",
            "  deps = gcc",
            "  description = $in",
        ]
    objects = []

    def compile_object(source: Path, name: str, more: str = "", instruction_set: str = "") -> None:
        objects.append(folder / instruction_set / f"{name}.o")
        lines.extend(
            [
                f"build {escaped(objects[-1])}: compile {escaped(source)}",
                f"  more = {more}",
                f"  set = {instruction_set}",
            ]
        )

    once = [CSRC / name for name in COMPILED_ONCE]
    for source in once:
        compile_object(source, source.stem, "$torch" if source.name in KNOW_TORCH else "")
    for name, flags in instruction_sets().items():
        for source in sorted(set(CSRC.glob("cpu/*.cpp")) - set(once)):
            compile_object(source, source.stem, f"{flags} -DRNR_ISA={name}", name)
    for source in sorted(CSRC.glob("cuda/*.cu")) if with_cuda else []:
        objects.append(folder / "cuda" / f"{source.stem}.o")
        lines.append(f"build {escaped(objects[-1])}: compile_cuda {escaped(source)}")
    inputs = " ".join(map(escaped, objects))
    lines.append(f"build {escaped(library)}: link {inputs}")
    return "\n".join(lines) + "\n"


def from_environment(name: str) -> str:
    """Flags, with what ninja would read as a variable escaped."""
    return os.environ.get(name, "").replace("$", "$$")


def escaped(path: Path) -> str:
    """A path in a build statement."""
    return str(path).replace("$", "$$").replace(" ", "$ ").replace(":", "$:")


def wish_for(variable: str) -> str:
    """What the environment asks for."""
    wish = os.environ.get(variable, "")
    if wish not in ("", "0", "1"):
        sys.exit(f"error: {variable} must be 0 (leave out) or 1 (insist), got {wish!r}")
    return wish


wish, cuda_wish = wish_for("RNR_BUILD_EXT"), wish_for("RNR_CUDA")
if cuda_wish == "1" and (no_cuda := why_no_cuda(cuda_wish)):
    sys.exit(f"error: RNR_CUDA=1, but {no_cuda}")
reason = "RNR_BUILD_EXT=0" if wish == "0" else why_not()
if reason and wish == "1":
    sys.exit(f"error: RNR_BUILD_EXT=1, but {reason}")
if reason and BUILD_COMMANDS & set(sys.argv):
    print(f"rnr_kernels: without compiled kernels, the reference will serve: {reason}")

# CPython without a global lock has no limited API yet; the library uses neither.
has_limited_api = not sysconfig.get_config_var("Py_GIL_DISABLED")
library = Extension("rnr_kernels._C", [], py_limited_api=has_limited_api)
setup(
    cmdclass={"build_ext": NinjaBuild},
    ext_modules=[] if reason else [library],
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if has_limited_api else {},
)
