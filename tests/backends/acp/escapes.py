"""Ways out of the sandbox, as an agent would try them: run by the scripted agent, with the standard library alone.

Each is a function of one `Scene`. What it gives back is what it got hold of; an exception, or nothing, means that it failed. None of them
touches anything but what the test laid out for it.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import resource
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

LIBC = ctypes.CDLL(None, use_errno=True)


class Scene:
    """`given`: paths, numbers of processes and names, as the test tells them. `way`: the escape's own name."""

    def __init__(self, given: dict[str, Any], way: str) -> None:
        self.__dict__.update(given)
        self.precious = Path(given["outside"]) / way
        """A file outside that this escape alone is after; it holds the word canary."""

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)


def called(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


WAYS: dict[str, Callable[[Scene], object]] = {}


def way(function: Callable[[Scene], object]) -> Callable[[Scene], object]:
    WAYS[function.__name__] = function
    return function


# ---- reading


@way
def read_a_file_outside(scene: Scene) -> str:
    return scene.precious.read_text()


@way
def read_the_ssh_key(scene: Scene) -> str:
    return Path(scene.home, ".ssh", "id_ed25519").read_text()


@way
def read_cloud_credentials(scene: Scene) -> str:
    return Path(scene.home, ".aws", "credentials").read_text()


@way
def read_the_proxys_configuration(scene: Scene) -> str:
    return Path(scene.config).read_text()


@way
def read_the_proxys_data(scene: Scene) -> str:
    return Path(scene.data, "state.sqlite3").read_text()


@way
def read_the_systems_passwords(scene: Scene) -> bytes:
    return Path("/etc/shadow").read_bytes()


@way
def list_the_home_directory(scene: Scene) -> bool:
    return ".ssh" in os.listdir(scene.home)


@way
def list_others_temporary_files(scene: Scene) -> bool:
    return Path(scene.outside).name in os.listdir(Path(scene.outside).parent)


@way
def read_by_dots(scene: Scene) -> str:
    return Path(os.path.relpath(scene.precious)).read_text()


@way
def read_by_the_own_working_directory(scene: Scene) -> str:
    return Path("/proc/self/cwd", os.path.relpath(scene.precious)).read_text()


@way
def read_by_the_own_root(scene: Scene) -> str:
    return Path(f"/proc/self/root{scene.precious}").read_text()


@way
def read_by_a_symbolic_link(scene: Scene) -> str:
    os.symlink(scene.precious, "symbolic")
    return Path("symbolic").read_text()


@way
def read_by_a_hard_link(scene: Scene) -> str:
    os.link(scene.precious, "hard")
    return Path("hard").read_text()


@way
def read_by_a_descriptor_that_only_names_it(scene: Scene) -> str:
    named = os.open(scene.precious, os.O_PATH)
    return Path(f"/proc/self/fd/{named}").read_text()


@way
def read_by_a_child(scene: Scene) -> bytes:
    return subprocess.run(["/bin/cat", scene.precious], capture_output=True, check=True).stdout


@way
def read_shared_memory(scene: Scene) -> str:
    return Path("/dev/shm", scene.shared).read_text()


# ---- other processes


@way
def environment_of_the_proxy(scene: Scene) -> bytes:
    return Path(f"/proc/{scene.proxy}/environ").read_bytes()


@way
def environment_of_a_neighbour(scene: Scene) -> bool:
    return b"canary" in Path(f"/proc/{scene.neighbour}/environ").read_bytes()


@way
def memory_of_the_proxy(scene: Scene) -> str:
    with open(f"/proc/{scene.proxy}/mem", "r+b", buffering=0):
        return "opened"


@way
def memory_of_a_neighbour_by_a_call(scene: Scene) -> bytes:
    buffer = ctypes.create_string_buffer(6)
    here, there = ((ctypes.c_size_t * 2)(ctypes.addressof(buffer), 6), (ctypes.c_size_t * 2)(scene.address, 6))
    called(LIBC.process_vm_readv(scene.neighbour, here, ctypes.c_ulong(1), there, ctypes.c_ulong(1), ctypes.c_ulong(0)))
    return buffer.raw


@way
def working_directory_of_the_proxy(scene: Scene) -> list[str]:
    return os.listdir(f"/proc/{scene.proxy}/cwd/.")


@way
def files_that_the_proxy_holds_open(scene: Scene) -> list[str]:
    return [os.readlink(f"/proc/{scene.proxy}/fd/{number}") for number in os.listdir(f"/proc/{scene.proxy}/fd")]


@way
def a_descriptor_of_a_neighbour(scene: Scene) -> int:
    handle = called(LIBC.syscall(434, scene.neighbour, 0))
    return called(LIBC.syscall(438, handle, 0, 0)) + 1


@way
def trace_a_neighbour(scene: Scene) -> str:
    called(LIBC.ptrace(0x4206, scene.neighbour, None, None))
    return "seized"


@way
def signal_a_neighbour(scene: Scene) -> str:
    os.kill(scene.neighbour, 0)
    return "allowed"


@way
def signal_the_launcher(scene: Scene) -> str:
    launcher = _parent(os.getppid())
    if launcher < 2:
        return ""  # that is bubblewrap's own first process
    os.kill(launcher, 0)
    return "allowed"


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


@way
def enter_the_namespaces_of_the_proxy(scene: Scene) -> str:
    os.open(f"/proc/{scene.proxy}/ns/mnt", os.O_RDONLY)
    return "opened"


# ---- changing


@way
def write_a_new_file_outside(scene: Scene) -> str:
    return str(Path(f"{scene.precious}.new").write_text("mine"))


@way
def overwrite_a_file_outside(scene: Scene) -> str:
    return str(scene.precious.write_text("mine"))


@way
def truncate_a_file_outside(scene: Scene) -> str:
    os.truncate(scene.precious, 0)
    return "truncated"


@way
def write_to_bashrc(scene: Scene) -> str:
    with Path(scene.home, ".bashrc").open("r+") as file:
        return str(file.write("mine"))


@way
def remove_a_file_outside(scene: Scene) -> str:
    scene.precious.unlink()
    return "removed"


@way
def rename_over_a_file_outside(scene: Scene) -> str:
    Path("mine").write_text("mine")
    os.replace("mine", scene.precious)
    return "replaced"


@way
def rename_a_file_outside_into_the_project(scene: Scene) -> str:
    os.rename(scene.precious, "stolen")
    return "stolen"


@way
def make_a_directory_outside(scene: Scene) -> str:
    Path(f"{scene.precious}.new").mkdir()
    return "made"


@way
def make_a_link_outside(scene: Scene) -> str:
    os.symlink("/", f"{scene.precious}.new")
    return "made"


@way
def change_the_mode_of_a_file_outside(scene: Scene) -> str:
    scene.precious.chmod(0o777)
    return "changed"


@way
def change_the_time_of_a_file_outside(scene: Scene) -> str:
    os.utime(scene.precious, (1, 1))
    return "changed"


@way
def change_by_mapping_it(scene: Scene) -> str:
    file = os.open(scene.precious, os.O_RDWR)
    mmap.mmap(file, 6)[:4] = b"mine"
    return "changed"


@way
def replace_its_own_program(scene: Scene) -> str:
    with open(scene.program, "ab") as program:
        return str(program.write(b"\n"))


@way
def mount_what_is_outside_into_the_project(scene: Scene) -> str:
    os.mkdir("mounted")
    called(LIBC.unshare(0x10000000 | 0x00020000))
    called(LIBC.mount(scene.outside.encode(), b"mounted", None, 4096, None))
    return Path("mounted", scene.precious.name).read_text()


@way
def make_a_device(scene: Scene) -> bytes:
    os.mknod("device", 0o600 | stat.S_IFCHR, os.makedev(1, 5))
    with open("device", "rb") as device:
        return device.read(1)


# ---- who would do it for the agent


@way
def a_socket_with_a_path(scene: Scene) -> bytes:
    with socket.socket(socket.AF_UNIX) as there:
        there.connect(scene.socket)
        return there.recv(6)


@way
def a_socket_without_a_path(scene: Scene) -> bytes:
    with socket.socket(socket.AF_UNIX) as there:
        there.connect("\0" + scene.abstract)
        return there.recv(6)


@way
def a_datagram_by_a_pair_of_sockets(scene: Scene) -> int:
    here, _ = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    return here.sendto(b"canary", scene.datagrams)


# ---- what it was started with


@way
def secrets_in_its_environment(scene: Scene) -> list[str]:
    return [name for name, value in os.environ.items() if "canary" in value]


@way
def secrets_in_the_environment_of_whom_it_stems_from(scene: Scene) -> bool:
    pid, found = os.getppid(), b""
    while pid > 1 and pid != scene.proxy:
        found += Path(f"/proc/{pid}/environ").read_bytes()
        pid = _parent(pid)
    return b"canary" in found


@way
def inherited_descriptors(scene: Scene) -> list[str]:
    found = []
    for number in range(3, 1000):
        try:
            name = os.readlink(f"/proc/self/fd/{number}")
        except OSError:
            continue
        if scene.outside in name:
            found.append(name)
    return found


@way
def raise_its_limits(scene: Scene) -> str:
    resource.setrlimit(resource.RLIMIT_CORE, (1, 1))
    return "raised"


@way
def become_somebody_else(scene: Scene) -> str:
    done = subprocess.run(
        [sys.executable, "-IS", "-c", "import os; os.setuid(12345); print(os.getuid())"], capture_output=True
    )
    return done.stdout.decode() if done.returncode == 0 else ""


def attempt(name: str, given: dict[str, Any]) -> str:
    """What it got, "" for nothing."""
    signal.alarm(20)
    try:
        return repr(got) if (got := WAYS[name](Scene(given, name))) else ""
    except Exception:
        return ""
