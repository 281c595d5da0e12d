"""podman with a store of its own under build/container, and a Debian base image made from this machine's apt sources.

No registry is asked for anything. Without root, podman, runc or the right to run containers unavailable() says what is
missing; all later failures are failures.
"""
import json
import os
import pathlib
import resource
import shutil
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDER = ROOT / "build/container"
BASE_IMAGE = "localhost/gatehouse-base:bookworm"
PROGRAMS = ("podman", "runc", "conmon", "mmdebstrap", "strip")


def unavailable():
    """Why containers cannot be built and run here; None: they can."""
    if os.geteuid() != 0:
        return "not root"
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        return f"not installed: {' '.join(missing)} (deploy/install-deps.sh --containers)"
    _write_configuration()
    done = podman("info", check=False)
    return None if done.returncode == 0 else f"podman cannot run: {done.stderr.strip()}"


def podman(*arguments, check=True, timeout=600):
    done = subprocess.run(
        ["podman", "--root", FOLDER / "store", "--runroot", FOLDER / "run", "--storage-driver", "overlay",
         *map(str, arguments)],
        env={**os.environ, "CONTAINERS_CONF": str(FOLDER / "containers.conf")}, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=timeout, check=False)
    if check and done.returncode != 0:
        raise AssertionError(f"podman {' '.join(map(str, arguments))}: {done.returncode}\n{done.stdout}{done.stderr}")
    return done


def _write_configuration():
    # runc: crun refuses hybrid cgroups. Limits no higher than ours: root in a container may not raise them.
    FOLDER.mkdir(parents=True, exist_ok=True)
    num_files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    (FOLDER / "containers.conf").write_text(
        f'[containers]\ndefault_ulimits = ["nofile={num_files}:{num_files}", "nproc=4096:4096"]\n'
        '[engine]\nruntime = "runc"\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n')


def make_base_image():
    """Debian slim as near as mmdebstrap makes it; kept in build/container for the next time. Why not, or None."""
    archive = FOLDER / "base.tar"
    if not archive.exists():
        sources = [path for path in map(pathlib.Path, ("/etc/apt/sources.list.d/debian.sources",
                                                       "/etc/apt/sources.list")) if path.exists()]
        unfinished = archive.with_suffix(".unfinished.tar")
        done = subprocess.run(["mmdebstrap", "--quiet", "--variant=minbase", "bookworm", unfinished, *sources[:1]],
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=800, check=False)
        if done.returncode != 0:
            return f"no base image: mmdebstrap: {done.stderr.strip()}"
        unfinished.rename(archive)
    podman("import", "-q", "-c", 'CMD ["bash"]', archive, BASE_IMAGE)
    return None


def cannot_run_containers():
    """What podman says when it cannot start a program in the base image; None: it can."""
    done = podman("run", "--rm", "--network", "none", BASE_IMAGE, "true", check=False)
    return None if done.returncode == 0 else done.stderr.strip()


def inspect(kind, name):
    return json.loads(podman(kind, "inspect", name).stdout)[0]


def reset():
    podman("system", "reset", "-f", check=False)
