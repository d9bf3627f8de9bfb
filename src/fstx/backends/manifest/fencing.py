"""Giving transactions up for dead, so that none of them can land afterwards."""

from __future__ import annotations

from dataclasses import replace

from fstx.backends.manifest.building import service_record
from fstx.backends.manifest.dataset import Dataset
from fstx.backends.manifest.log import Appender, Head, Since
from fstx.backends.manifest.names import new_txid
from fstx.backends.manifest.survey import CHANGES, survey
from fstx.errors import StorageError
from fstx.machines import manifest as m
from fstx.machines import vocabulary as v
from fstx.state.records import Record


def fence(dataset: Dataset, txids: list[str], begun: int = 0) -> m.Landed | v.Aborted:
    """Give transactions up for dead: none of them can land afterwards.

    Parameters
    ----------
    dataset
        The dataset.
    txids
        The transactions.
    begun
        The version after which they began: no record up to it is theirs.

    Returns
    -------
    Outcome
        ``Landed`` if one of them turned out committed (its slot); ``Aborted("gone")`` when all are fenced.

    Raises
    ------
    StorageError
        The log can't be written, or does not tell any more whether one of them landed.
    """
    wanted = set(txids)
    found: dict[str, int] = {}

    def judge(head: Head, since: Since) -> m.Verdict:
        for record in since or ():
            if record.kind in CHANGES and record.txid in wanted:
                found[record.txid] = record.seq
        if since is None:
            found.update(_landed(dataset, wanted, begun))
        wanted.difference_update(found)
        return "moot" if wanted <= set(head.state.fenced) else "free"

    def build(head: Head, since: Since) -> Record:
        fenced = {**head.state.fenced, **dict.fromkeys(sorted(wanted), head.seq + 1)}
        return service_record("fence", head, replace(head.state, fenced=fenced), nonce)

    nonce = new_txid()
    dataset.refresh()
    head, since = dataset.known_since(begun)
    if judge(head, since) == "free":
        appender = Appender(dataset.log, head, nonce, build, judge)
        outcome = appender.run()
        if isinstance(outcome, v.Aborted | v.InDoubt):
            raise StorageError(
                f"{dataset.url}: the log could not be written", outcome="unknown"
            ) from appender.cause
        if isinstance(outcome, m.Landed):
            dataset.note(appender)
    if found:
        return m.Landed(max(found.values()))
    return v.Aborted("gone")


def _landed(dataset: Dataset, txids: set[str], begun: int) -> dict[str, int]:
    """Which of `txids` landed, and where, from the whole log and then from what its truncation remembers."""
    if not txids:
        return {}
    log = survey(dataset.log)
    found = {
        row.txid: seq for seq, row in log.rows.items() if row.kind in CHANGES and row.txid in txids
    }
    voided = dataset.log.voided()
    found.update((t, voided.txids[t]) for t in txids & set(voided.txids))
    if found.keys() != txids and max([voided.since, *log.damaged]) > begun:
        raise StorageError(
            f"{dataset.url}: records are gone or damaged, and nothing tells whether one of them was of "
            + ", ".join(sorted(txids - found.keys())),
            outcome="unknown",
        )
    return found
