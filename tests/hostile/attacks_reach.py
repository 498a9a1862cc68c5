"""Reaching for what is not theirs: seed, bundle, other students, other processes' memory, the network.

Most of these are spies: they raise what they found, and must have found nothing.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pathlib
import pwd
import socket
import stat
import sys

from hostile.attack import ABSTRACT, FOLDER, PORT, Attack, attack

__all__ = ["ATTACKS"]

NOTHING = "ValueError: found nothing"

# What the grader knows: the seed, the key, the environment, its files.


@attack(NOTHING)
def the_environment(x):
    """Looks for the teacher's secret in the environment, its own and other processes'."""
    texts = [str(dict(os.environ))]
    for number in range(1, 2000):
        with contextlib.suppress(OSError):
            texts.append(pathlib.Path(f"/proc/{number}/environ").read_text(errors="replace"))
    raise ValueError("found the secret" if any("5d1e" in text for text in texts) else "found nothing")


@attack(NOTHING)
def the_teachers_folder(x):
    """Reads the folder of the submission, results and other students."""
    found = []
    for place in (FOLDER, *map(str, pathlib.Path(FOLDER).parents)):
        with contextlib.suppress(OSError):
            found += os.listdir(place) if place not in ("/", "/tmp") else []
    with contextlib.suppress(OSError):
        found.append(pathlib.Path(FOLDER, "inbox/ada/submission.ipynb").read_text())
    raise ValueError(f"found {found or 'nothing'}")


@attack(NOTHING)
def home_and_accounts(x):
    """Reads home folders, keys, password files and histories."""
    places = [pathlib.Path(entry.pw_dir) for entry in pwd.getpwall()] + [
        pathlib.Path(p) for p in ("/root", "/home")
    ]
    found = []
    for place in places:
        for name in (".ssh", ".bash_history", ".jupyter", ".gitconfig", ".netrc", ".cache"):
            with contextlib.suppress(OSError):
                found += [str(place / name)] if (place / name).exists() else []
    for name in ("/etc/shadow", "/etc/passwd", "/var/log", "/var/lib", "/srv", "/mnt", "/media", "/run"):
        found += [name] if os.path.exists(name) else []
    raise ValueError(f"found {found or 'nothing'}")


@attack(NOTHING)
def other_processes(x):
    """Reads /proc: command lines, memory, mounts, open files."""
    found = []
    for name in (
        "1/cmdline",
        "1/environ",
        "self/mounts",
        "self/mountinfo",
        "self/maps",
        "1/mem",
        "1/root",
        "self/fd",
        "kcore",
        "kallsyms",
        "sys/kernel/core_pattern",
    ):
        with contextlib.suppress(OSError):
            place = pathlib.Path("/proc", name)
            found += [name] if place.exists() or place.is_symlink() else []
    raise ValueError(f"found {found or 'nothing'}")


@attack(NOTHING)
def the_parents_memory(x):
    """Attaches to its parent and to the first process, and reads their memory by system calls."""
    library = ctypes.CDLL(None, use_errno=True)
    library.ptrace.restype = ctypes.c_long
    found = []
    for number in (1, 2, 3, os.getppid()):
        if number not in (0, os.getpid()):
            if library.ptrace(16, number, None, None) == 0:
                found.append(f"ptrace {number}")
            if library.process_vm_readv(number, None, 0, None, 0, 0) == 0:
                found.append(f"memory of {number}")
    raise ValueError(f"found {found or 'nothing'}")


@attack(NOTHING)
def inherited_descriptors(x):
    """Looks for open files, pipes and sockets beside the one for its record."""
    found = []
    for pipe in range(3, 4096):
        with contextlib.suppress(OSError):
            kind = os.fstat(pipe).st_mode
            found += [] if pipe == 3 and stat.S_ISFIFO(kind) else [f"{pipe}: {stat.filemode(kind)}"]
    raise ValueError(f"found {found or 'nothing'}")


@attack(NOTHING)
def reading_back_the_channel(x):
    """Reads from the pipe of its record, where an earlier one might still lie."""
    with contextlib.suppress(OSError):
        os.set_blocking(3, False)
        raise ValueError(f"found {os.read(3, 100)}")
    raise ValueError("found nothing")


# Writing what is not theirs.


@attack(honest=True)
def results_of_its_own(x):
    """Writes results.json, scores.csv, the gradebook and another student's folder, and is right."""
    for base in (
        FOLDER,
        ".",
        "..",
        "/",
        "/tmp",
        "/kit",
        os.path.dirname(sys.modules["compresslab"].__file__),
    ):
        for name in (
            "results.json",
            "results/scores.csv",
            "results/students/ada/results.json",
            "gradebook.db",
        ):
            with contextlib.suppress(OSError):
                pathlib.Path(base, name).write_text('{"score": 99}')
    return float(x.sum())


@attack(NOTHING)
def the_package_itself(x):
    """Rewrites the package, the libraries and Python, for whoever is graded next."""
    found = []
    for name in ("compresslab", "torch", "numpy", "json"):
        page = sys.modules[name].__file__
        for act in (
            lambda p=page: pathlib.Path(p).write_text("raise SystemExit"),
            lambda p=page: os.chmod(p, 0o777),
            lambda p=page: os.unlink(p),
            lambda p=page: os.rename(p, "/tmp/moved"),
        ):
            with contextlib.suppress(OSError):
                act()
                found.append(page)
    for place in {*sys.path, "/usr/bin", "/usr/lib", "/kit", "/dev", "/dev/shm", "/"}:
        with contextlib.suppress(OSError):
            pathlib.Path(place, "sitecustomize.py").write_text("raise SystemExit")
            found.append(place)
    raise ValueError(f"found {found or 'nothing'}")


@attack(honest=True)
def planted_links(x):
    """Leaves links and hard links with the names of the grader's files, and is right."""
    for name in ("attacked.run", "honest.run", "honest.cases", "results.json", "job.json"):
        for target in (f"{FOLDER}/gradebook.db", "/etc/passwd", "/dev/zero"):
            with contextlib.suppress(OSError):
                os.symlink(target, f"/tmp/{name}")
            with contextlib.suppress(OSError):
                os.link(target, f"/tmp/hard-{name}")
    return float(x.sum())


@attack(honest=True)
def planted_pipes_and_devices(x):
    """Leaves FIFOs, sockets and device files where a reader might hang, and is right."""
    for name in ("attacked.run", "honest.run", "results.json"):
        with contextlib.suppress(OSError):
            os.mkfifo(f"/tmp/{name}")
        with contextlib.suppress(OSError):
            os.mknod(f"/tmp/device-{name}", stat.S_IFBLK | 0o666, os.makedev(8, 0))
        with contextlib.suppress(OSError):
            socket.socket(socket.AF_UNIX).bind(f"/tmp/socket-{name}")
    return float(x.sum())


@attack(honest=True)
def a_planted_module(x):
    """Leaves torch.py, sitecustomize.py and .pth files for the next worker to import, and is right."""
    for name in ("torch.py", "compresslab.py", "sitecustomize.py", "usercustomize.py", "evil.pth", "json.py"):
        with contextlib.suppress(OSError):
            pathlib.Path("/tmp", name).write_text("import os; os._exit(0)")
    return float(x.sum())


@attack(NOTHING)
def what_an_earlier_answer_left(x):
    """Looks for files, shared memory and message queues of the answers before it."""
    found = [
        name
        for place in ("/tmp", "/dev/shm", "/var/tmp", "/run")
        if os.path.isdir(place)
        for name in os.listdir(place)
    ]
    raise ValueError(f"found {found or 'nothing'}")


# The network.


@attack(NOTHING)
def a_call_to_this_machine(x):
    """Connects to a port of the grader's machine."""
    with contextlib.suppress(OSError):
        socket.create_connection(("127.0.0.1", PORT), timeout=0.5).send(b"the answers, please")
        raise ValueError("found an open port")
    raise ValueError("found nothing")


@attack(NOTHING)
def a_call_by_an_abstract_name(x):
    """Connects to a unix socket without a file, which no read-only disk stops."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as caller:
        caller.connect(ABSTRACT)
        raise ValueError("found an abstract socket")
    raise ValueError("found nothing")


@attack("PermissionError: [Errno 1]")
def a_call_to_the_world(x):
    """Looks for interfaces beside its own loop, and sends a datagram and a raw packet."""
    found = [name for _, name in socket.if_nameindex() if name != "lo"]
    for kind, where in ((socket.SOCK_DGRAM, ("192.0.2.1", 53)), (socket.SOCK_RAW, ("192.0.2.1", 0))):
        with contextlib.suppress(OSError), socket.socket(socket.AF_INET, kind) as caller:
            caller.sendto(b"x", where)
            found.append(where)
    raise ValueError(f"found {found or 'nothing'}")


ATTACKS = [value for value in list(vars().values()) if isinstance(value, Attack)]
