"""What a run ran on: Python and its packages, machine, GPUs, command line, seeds, place in a distributed job.

``capture`` runs in a background thread while the training starts, so it asks only cheap sources: names of folders
instead of package metadata, files in ``/proc`` and ``/sys`` instead of libraries.  Nothing is imported that the
training has not imported itself.  A source that cannot be read leaves its entry out.
"""

from __future__ import annotations

import os
import platform
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gittrack.track import secrets

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

MAX_ARGUMENTS: Final = 256  #: arguments of the command line that are kept
MAX_TEXT: Final = 1024  #: characters of one value (an argument, a variable, a name) that are kept
MAX_PACKAGES: Final = 10_000

#: Variables that change what a training computes or where, and carry no personal data.
VARIABLES: Final = (
    "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "CUDA_LAUNCH_BLOCKING", "CUDA_HOME", "CUDA_PATH", "CUDA_VERSION",
    "CUDNN_VERSION", "CUBLAS_WORKSPACE_CONFIG", "NVIDIA_VISIBLE_DEVICES", "NVIDIA_TF32_OVERRIDE",
    "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HSA_OVERRIDE_GFX_VERSION",
    "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ENABLE_MPS_FALLBACK", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
    "TF_DETERMINISTIC_OPS", "TF_CUDNN_DETERMINISTIC", "TF_ENABLE_ONEDNN_OPTS", "TF_FORCE_GPU_ALLOW_GROWTH",
    "XLA_FLAGS", "JAX_PLATFORMS", "JAX_ENABLE_X64", "TOKENIZERS_PARALLELISM",
    "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS", "VECLIB_MAXIMUM_THREADS",
    "NCCL_DEBUG", "NCCL_SOCKET_IFNAME", "NCCL_P2P_DISABLE", "NCCL_IB_DISABLE",
    "PYTHONHASHSEED", "PYTHONPATH", "VIRTUAL_ENV", "CONDA_DEFAULT_ENV", "LANG", "LC_ALL", "TZ",
    "CI", "GITHUB_RUN_ID", "GITHUB_WORKFLOW", "CI_JOB_ID", "CI_PIPELINE_ID", "BUILD_TAG",
    "GITTRACK_RERUN",  # set by `gittrack reproduce --run`, which so knows every run that its program made
)  # fmt: skip

#: Variables with which launchers and schedulers tell a process its place in a job.
DISTRIBUTED: Final = (
    "RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT",
    "TORCHELASTIC_RUN_ID", "TF_CONFIG", "HOROVOD_RANK", "HOROVOD_SIZE", "HOROVOD_LOCAL_RANK",
    "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK",
    "PMI_RANK", "PMI_SIZE", "PMIX_RANK", "MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE",
    "SLURM_JOB_ID", "SLURM_JOB_NAME", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_CLUSTER_NAME",
    "SLURM_JOB_PARTITION", "SLURM_JOB_NODELIST", "SLURM_NNODES", "SLURM_NTASKS", "SLURM_NODEID", "SLURM_PROCID",
    "SLURM_LOCALID", "SLURM_CPUS_PER_TASK", "SLURM_GPUS",
    "PBS_JOBID", "LSB_JOBID", "JOB_ID", "SGE_TASK_ID", "TPU_WORKER_ID", "RAY_JOB_ID",
)  # fmt: skip

_USER_VARIABLES: Final = ("LOGNAME", "USER", "LNAME", "USERNAME")  # the order of getpass.getuser
_PROGRAM_SECONDS: Final = 2.0  # after this long a program that was asked counts as silent


def _text(value: object, limit: int = MAX_TEXT) -> str:
    """``value`` as text that UTF-8 can hold, cut to ``limit`` characters."""
    return str(value)[:limit].encode("utf-8", "backslashreplace").decode("utf-8")[:limit]


def _read(path: Path) -> str:
    """A small file of the system as text; empty if it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(65536).decode("utf-8", "replace")
    except OSError:
        return ""


def _ask(*command: str) -> str:
    """What a program of the system prints; empty if it is missing, fails or takes more than two seconds."""
    import subprocess

    try:
        done = subprocess.run(
            command, capture_output=True, timeout=_PROGRAM_SECONDS, check=True, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.decode("utf-8", "replace")


def user_name(environ: Mapping[str, str] | None = None) -> str:
    """Who runs this process: from ``environ`` as ``getpass.getuser`` does, else from the system, else ``unknown``."""
    for variable in _USER_VARIABLES:
        if name := (environ or {}).get(variable):
            return _text(name)
    try:
        if sys.platform != "win32":
            import pwd

            return _text(pwd.getpwuid(os.getuid()).pw_name)
        return _text(os.getlogin())
    except (KeyError, OSError):  # a container may run under a number that has no name
        return "unknown"


# ---------------------------------------------------------------------------------------------------------------------
# Packages

_INSTALLED: Final = re.compile(r"(.+?)-([^-]+?)(?:-py\d[\d.]*(?:-.+)?)?\.(?:dist|egg)-info")
_SEPARATORS: Final = re.compile(r"[-_.]+")


def packages(paths: Sequence[str]) -> dict[str, str]:
    """Name and version of every distribution in the folders ``paths`` (``sys.path``), sorted by name.

    Read from the names of the ``*.dist-info`` and ``*.egg-info`` folders, 50 times faster than through
    ``importlib.metadata``.  Names are normalised as package indexes do (``Ruamel_Yaml`` is ``ruamel-yaml``); of two
    versions the first on the path counts, as for an import.
    """
    found: dict[str, str] = {}
    for folder in dict.fromkeys(paths):
        try:
            names = os.listdir(folder or os.curdir)  # noqa: PTH208 - names are enough, a Path for each is slow
        except OSError:  # a zip file, or a folder that does not exist
            continue
        here: dict[str, str] = {}
        for name in names:
            if name.endswith((".dist-info", ".egg-info")):
                match = _INSTALLED.fullmatch(name)
                if match:
                    here[_SEPARATORS.sub("-", match[1]).lower()] = match[2]
                else:  # a package that is developed in place: `name.egg-info`, the version is inside
                    version = re.search(r"^Version: *(\S+)", _read(Path(folder, name, "PKG-INFO")), re.MULTILINE)
                    here[_SEPARATORS.sub("-", name.rpartition(".")[0]).lower()] = version[1] if version else ""
        found = here | found
    return {_text(name): _text(found[name]) for name in sorted(found)[:MAX_PACKAGES]}


# ---------------------------------------------------------------------------------------------------------------------
# Machine


def _cpu_model(environ: Mapping[str, str]) -> str:
    if sys.platform == "darwin":
        return _ask("/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string").strip()
    if sys.platform == "win32":
        return environ.get("PROCESSOR_IDENTIFIER", "")
    found = re.search(
        r"^(?:model name|Model|cpu model|Processor)\s*: *(.+)$", _read(Path("/proc/cpuinfo")), re.MULTILINE
    )
    return found[1] if found else ""


def _memory_bytes() -> int:
    if sys.platform != "win32":
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    import psutil

    return int(psutil.virtual_memory().total)


def _machine(environ: Mapping[str, str]) -> dict[str, Any]:
    cpu: dict[str, Any] = {"count": os.cpu_count() or 0}
    if hasattr(os, "sched_getaffinity"):  # the cores that this process may use
        cpu["usable"] = len(os.sched_getaffinity(0))
    if model := _cpu_model(environ):
        cpu["model"] = _text(model)
    return {"cpu": cpu, "memory_bytes": _memory_bytes()}


def _nvidia_of_kernel(proc: Path) -> dict[str, Any]:
    """What the kernel's driver says of itself; no library and no process is needed for it."""
    gpus = []
    for information in sorted(proc.glob("driver/nvidia/gpus/*/information")):
        facts = dict(re.findall(r"^([^:\n]+?)\s*:\s*(.*?)\s*$", _read(information), re.MULTILINE))
        if "Model" in facts:
            gpus.append({"name": _text(facts["Model"]), "uuid": _text(facts.get("GPU UUID", ""))})
    driver = re.search(r"Kernel Module.*?\s(\d+\.[\d.]+)", _read(proc / "driver/nvidia/version"))
    return {"gpus": gpus, "gpu_driver": driver[1] if driver else ""} if gpus else {}


def _nvidia_of_program(environ: Mapping[str, str]) -> dict[str, Any]:
    """What ``nvidia-smi`` says, where the driver is not in ``/proc``: Windows, and Linux inside of it (WSL).

    Only at its own places, never along ``PATH``, and only if there is a device: a process is dear.
    """
    if sys.platform == "win32":
        program = Path(environ.get("SYSTEMROOT", r"C:\Windows"), "System32", "nvidia-smi.exe")
    else:
        program = Path("/usr/lib/wsl/lib/nvidia-smi")
        program = program if program.exists() else Path("/usr/bin/nvidia-smi")
        if not Path("/dev/dxg").exists() and not Path("/dev/nvidiactl").exists():
            return {}
    query = ("--query-gpu=name,uuid,memory.total,driver_version", "--format=csv,noheader,nounits")
    return _parse_nvidia_smi(_ask(str(program), *query) if program.exists() else "")


def _parse_nvidia_smi(table: str) -> dict[str, Any]:
    rows = [[_text(cell.strip()) for cell in line.split(",")] for line in table.splitlines()]
    rows = [row for row in rows if len(row) == 4]
    gpus = [
        {"name": name, "uuid": uuid} | ({"memory_bytes": int(mebibytes) << 20} if mebibytes.isdecimal() else {})
        for name, uuid, mebibytes, _ in rows
    ]
    return {"gpus": gpus, "gpu_driver": rows[0][3]} if rows else {}


def _amd(sys_: Path) -> dict[str, Any]:
    gpus = []
    for device in sorted(sys_.glob("class/drm/card[0-9]*/device")):
        if _read(device / "vendor").strip() == "0x1002":
            name = _read(device / "product_name").strip() or f"AMD {_read(device / 'device').strip()}"
            memory = _read(device / "mem_info_vram_total").strip()
            gpus.append({"name": _text(name)} | ({"memory_bytes": int(memory)} if memory.isdecimal() else {}))
    return {"gpus": gpus} if gpus else {}


def _gpus(environ: Mapping[str, str], cpu_model: str) -> dict[str, Any]:
    if sys.platform == "darwin":  # the GPU is a part of the chip, which the CPU is named after
        return {"gpus": [{"name": cpu_model}]} if platform.machine() == "arm64" else {}
    return _nvidia_of_kernel(Path("/proc")) or _nvidia_of_program(environ) or _amd(Path("/sys"))


# ---------------------------------------------------------------------------------------------------------------------
# Seeds


def _numpy_seed(random: Any) -> int | None:
    """The seed of ``numpy.random.seed(seed)``, as long as nothing has been drawn since.

    The Mersenne twister's first word is the seed until the first draw (position 624) mixes it; numpy's own start from
    the system's entropy puts 2^31 there.
    """
    state = random.get_state(legacy=False)
    if state["bit_generator"] != "MT19937" or state["state"]["pos"] != 624:
        return None
    first = int(state["state"]["key"][0])
    return None if first == 1 << 31 else first


def _seed_of(module: str, ask: Callable[[Any], int | None]) -> int | None:
    if module not in sys.modules:
        return None
    try:
        return ask(sys.modules[module])
    except Exception:  # noqa: BLE001 - foreign code, perhaps half imported by the main thread at this moment
        return None


def seeds(environ: Mapping[str, str]) -> dict[str, Any]:
    """The seeds that can be known from outside; a library is asked only if the training has imported it.

    ``python_hash``: PYTHONHASHSEED, if set.  ``torch``: what the default generator was last seeded with, however much
    was drawn since.  ``numpy``: the seed of the global generator, only while nothing was drawn from it.  Generators
    that the training makes for itself (``numpy.random.default_rng``, ``random.Random``, jax's keys) and the state of
    ``random`` cannot be traced back to a seed: log those as parameters.
    """
    found = {
        "python_hash": _text(environ["PYTHONHASHSEED"]) if "PYTHONHASHSEED" in environ else None,
        "torch": _seed_of("torch", lambda torch: int(torch.initial_seed())),
        "numpy": _seed_of("numpy.random", _numpy_seed),
    }
    return {key: seed for key, seed in found.items() if seed is not None}


# ---------------------------------------------------------------------------------------------------------------------


def _variables(environ: Mapping[str, str], names: Sequence[str]) -> dict[str, str]:
    return {name: _text(secrets.redact_value(name, environ[name][: 4 * MAX_TEXT])) for name in names if name in environ}


def _directory(cwd: Path, root: Path | None) -> str:
    if root is not None and cwd.is_relative_to(root):
        return _text(cwd.relative_to(root).as_posix())
    return _text(cwd)


def capture(argv: Sequence[str], environ: Mapping[str, str], cwd: Path, *, root: Path | None = None) -> dict[str, Any]:
    """Everything about this process's surroundings that a run records.

    Args:
        argv: The command line (``sys.orig_argv`` tells more than ``sys.argv``); secrets in it are redacted.
        environ: The environment; only the variables of ``VARIABLES`` and ``DISTRIBUTED`` are looked at, the user's
            name, and what the system needs to be found on Windows.
        cwd: Working directory of the process.
        root: Work tree of the repository: a ``cwd`` below it is recorded relative to it, with ``/``.

    Returns:
        Text, whole numbers, lists and dicts only, with text keys: ``python``, ``platform``, ``packages``, ``command``,
        ``directory``, ``host``, ``user``, ``cpu``, ``memory_bytes``, ``variables``, and if there are any ``gpus``,
        ``gpu_driver``, ``seeds``, ``distributed``.  Texts are cut to ``MAX_TEXT`` characters.
    """
    machine = _machine(environ)
    record: dict[str, Any] = {
        "python": {
            "version": platform.python_version(),
            "implementation": platform.python_implementation(),
            "executable": _text(sys.executable),
        },
        "platform": {
            "system": platform.system(),
            "release": _text(platform.release()),
            "machine": platform.machine(),
            "description": _text(platform.platform()),
        },
        "packages": packages(sys.path),
        "command": [_text(arg) for arg in secrets.redact_args([arg[: 4 * MAX_TEXT] for arg in argv[:MAX_ARGUMENTS]])],
        "directory": _directory(cwd, root),
        "host": _text(platform.node()),
        "user": user_name(environ),
        **machine,
        **_gpus(environ, machine["cpu"].get("model", "")),
        "variables": _variables(environ, VARIABLES),
    }
    optional = {"seeds": seeds(environ), "distributed": _variables(environ, DISTRIBUTED)}
    return record | {key: found for key, found in optional.items() if found}
