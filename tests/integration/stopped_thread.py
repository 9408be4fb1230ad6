"""Stops one thread of another process, as a device that hangs does: its process lives on."""

import ctypes
import os
import pathlib
import threading

PTRACE_SEIZE, PTRACE_INTERRUPT = 0x4206, 0x4207
WALL = 0x40000000  # threads too


def threads(pid, name):
    """Ids of the process's threads of that name."""
    found = []
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        try:
            if (task / "comm").read_text().strip() == name:
                found.append(int(task.name))
        except OSError:
            pass  # it ended meanwhile
    return found


class StoppedThread:
    """The thread stands still until its process ends or replaces itself. ptrace belongs to the calling
    thread, so one of its own holds the victim, and collects it when it is gone."""

    def __init__(self, thread_id):
        self.thread_id = thread_id
        self.error = None
        self.stopped = threading.Event()
        self.worker = threading.Thread(target=self.hold, daemon=True)
        self.worker.start()
        self.stopped.wait()

    def hold(self):
        libc = ctypes.CDLL(None, use_errno=True)
        libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
        for request in (PTRACE_SEIZE, PTRACE_INTERRUPT):
            if libc.ptrace(request, self.thread_id, None, None) != 0:
                self.error = os.strerror(ctypes.get_errno())
                self.stopped.set()
                return
        os.waitpid(self.thread_id, WALL)
        self.stopped.set()
        while True:
            try:
                _, status = os.waitpid(self.thread_id, WALL)
            except ChildProcessError:
                return
            if os.WIFEXITED(status) or os.WIFSIGNALED(status):
                return
