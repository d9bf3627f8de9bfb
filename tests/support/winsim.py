from fstx_conformance.seams.windows import Killed, SimDisk, WinSim, windows_error  # noqa: F401
