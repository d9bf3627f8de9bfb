"""Jobs that survive: finished units of work are kept until the commit, and a later run goes on.

`fingerprint` says whether two runs are the same job, `units` are the records, `jobs` finds what an earlier
run left, `transaction` is what the caller works with. Where things lie is a backend's matter (`fstx.depot`).
"""

from fstx.resuming.fingerprint import Fingerprint, fingerprint
from fstx.resuming.jobs import RESUMES, Job, Resume, begin_job, jobs_of, sweep
from fstx.resuming.transaction import ResumableTransaction, UnitWriter

__all__ = [
    "RESUMES",
    "Fingerprint",
    "Job",
    "ResumableTransaction",
    "Resume",
    "UnitWriter",
    "begin_job",
    "fingerprint",
    "jobs_of",
    "sweep",
]
