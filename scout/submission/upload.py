"""The leaderboard's server, spoken to by cogames' own code and with the token of `cogames login`."""

import hashlib
import importlib.metadata
import logging
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cogames.cli.compat
import typer
from cogames.cli.client import PolicyVersionInfo, SeasonInfo, SeasonSummary
from cogames.cli.login import DEFAULT_COGAMES_SERVER
from cogames.cli.submit import DEFAULT_SUBMIT_SERVER, upload_submission

from scout.errors import ScoutError, nearest
from scout.submission.bundle import Bundle
from scout.submission.client import COMPLETE, COMPLETE_SECONDS, STORING, Client, Failure, connected, options_for
from scout.submission.journal import ACCEPTED, FAILED, UNKNOWN, Journal, Record
from scout.submit_config import SubmitConfig

log = logging.getLogger(__name__)

LOOKS, LOOK_SECONDS = 3, 1.0  # after a lost answer: the server may still be busy with what it was sent
CLOCK_SECONDS = 600.0  # by which the server's clock may differ from ours


@dataclass(frozen=True)
class Season:
    """What a bundle is sent to."""

    name: str
    entry_config_id: str
    """Id of the config that the pool for newcomers plays."""


@dataclass(frozen=True)
class Answer:
    """What the server made of a bundle."""

    id: str
    name: str
    version: int
    pools: list[str] | None
    """Those that it was added to; null where the answer was lost, and the server was asked for its versions instead."""
    season: str
    server: str


class Leaderboard:
    """The server of a submission, with the token of its login server."""

    def __init__(self, config: SubmitConfig) -> None:
        self._name, self._wanted, self._again = config.name or "", config.season, config.again
        self.server = config.server or DEFAULT_SUBMIT_SERVER
        self.login_server = config.login_server or DEFAULT_COGAMES_SERVER

    def season(self) -> Season:
        """The season to enter: the configured one, or the server's default.

        Raises ScoutError when nobody is logged in or the token is refused, when the server cannot be reached or is none
        that cogames knows, and for a season that it does not have, that this version of cogames does not fit, or that
        takes no newcomers.
        """
        with connected(self.server, self.login_server) as client:
            listed, name = None, self._wanted
            if name is None:
                listed = self._listed(client)
                name = next((season.name for season in listed if season.is_default), listed[0].name)
            found = client.attempt(lambda: client.get_season(name))
            if isinstance(found, Failure):
                if not found.gone and found.status not in (401, 403) and (found.status or 0) < 500:
                    names = [season.name for season in listed or self._listed(client)]
                    if name not in names:
                        raise ScoutError(f"season={name} is not a season of {self.server}; {nearest(name, names)}")
                raise self._error(found)
            self._check_version(client, found, listed)
            entry = next((pool for pool in found.pools if pool.name == found.entry_pool), None)
            if entry is None or entry.config_id is None:
                raise ScoutError(
                    f"season={name} takes no newcomers now: expected one with a pool for them; "
                    f"{self._choice(client, found, listed)}"
                )
            known = client.attempt(lambda: client.versions(self._name))  # who is refused here could not upload either
            if isinstance(known, Failure) and known.status in (401, 403):
                raise self._error(known)
        return Season(found.name, str(entry.config_id))

    def mission(self, season: Season) -> dict[str, Any]:
        """The config of the mission that the season's pool for newcomers plays. Raises ScoutError without an answer."""
        with connected(self.server, self.login_server) as client:
            found = client.attempt(lambda: client.mission(season.entry_config_id))
        if isinstance(found, Failure):
            raise self._error(found)
        return found

    def sent_before(self, bundle: Bundle, season: Season, journal_folder: Path) -> Answer | None:
        """What the server made of the same bundle before, as the journal knows it; None where it is to be sent.

        Raises ScoutError when another process is sending one with this journal, and when it cannot be written.
        """
        with self._journal(journal_folder, bundle, season) as journal:
            return None if self._again or journal.lost else self._accepted(journal, season)

    def send(self, bundle: Bundle, season: Season, journal_folder: Path) -> Answer:
        """Sends a bundle, or finds that the server has it from a call before; the journal says which.

        Raises ScoutError when the server refuses it, when it cannot be reached, when it cannot be told whether it has
        the bundle, and when another process is sending one with this journal. Calling again is always safe. All that a
        user sends from a machine belongs in one journal, since a version that it does not know may be claimed.
        """
        _check_unchanged(bundle)
        with (
            self._journal(journal_folder, bundle, season) as journal,
            connected(self.server, self.login_server) as client,
        ):
            if not self._again:
                answer = self._from_before(client, journal, season)
                if answer is not None:
                    return answer
            known = client.attempt(lambda: client.versions(self._name))
            newest = None if isinstance(known, Failure) else max((one.version for one in known), default=0)
            journal.begin(newest)
            log.info("Sending %s, %.1f MB, to %s of %s", self._name, bundle.size / 1e6, season.name, self.server)
            try:
                sent = client.attempt(lambda: self._upload(client, bundle, season))
            except BaseException:  # Ctrl-C
                journal.end(UNKNOWN if client.step.endswith(COMPLETE) else FAILED, reason="interrupted")
                raise
            if isinstance(sent, Failure):
                if not sent.step.endswith(COMPLETE) or sent.undone:
                    journal.end(FAILED, reason=sent.said)
                    raise self._error(sent)
                journal.end(UNKNOWN, reason=sent.said)
                found = self._arrived(client, journal, season, journal.lost[-1:])
                if not isinstance(found, Answer):
                    raise ScoutError(
                        f"It is not known whether server={self.server} has {self._name}: its answer was lost "
                        f"({sent.said}). Call again: that asks the server first, and sends only what is not there"
                    )
                log.info("The answer of %s was lost (%s), but it has the bundle", self.server, sent.said)
                sent = found
            journal.end(ACCEPTED, id=sent.id, version=sent.version, pools=sent.pools)
            return sent

    def _journal(self, folder: Path, bundle: Bundle, season: Season) -> Journal:
        return Journal(folder, name=self._name, server=self.server, season=season.name, sha256=bundle.sha256)

    def _upload(self, client: Client, bundle: Bundle, season: Season) -> Answer:
        result = upload_submission(client, bundle.path, self._name, season=season.name)
        assert result is not None, "it raises where it has none"
        if not isinstance(result.version, int):
            raise ValueError(f"version={result.version!r} is no integer")
        pools = [str(pool) for pool in result.pools] if isinstance(result.pools, list) else None
        return Answer(str(result.policy_version_id), str(result.name), result.version, pools, season.name, self.server)

    def _from_before(self, client: Client, journal: Journal, season: Season) -> Answer | None:
        """What the server has of earlier calls; None where the bundle is to be sent.

        Raises ScoutError when the answer to one was lost, and it cannot be told whether it arrived.
        """
        if lost := journal.lost:
            found = self._arrived(client, journal, season, lost)
            if isinstance(found, Answer):
                log.info("%s has it: the call of %s had arrived", self.server, lost[0]["time"])
                journal.end(ACCEPTED, id=found.id, version=found.version, pools=found.pools)
                return found
            if isinstance(found, str):
                look = f"cogames submissions -p {self._name}{options_for(self.login_server, self.server)}"
                raise ScoutError(
                    f"server={self.server} may have {self._name} already: its answer to the call of {lost[0]['time']} "
                    f"was lost, and {found}. Look with `{look}`; if it is not there, again=true sends it"
                )
            for _ in lost:
                journal.end(FAILED, reason="the server does not have it")
        return self._accepted(journal, season)

    def _accepted(self, journal: Journal, season: Season) -> Answer | None:
        record = journal.accepted
        if record is None:
            return None
        log.info(
            "%s has this bundle already, as %s:v%d; nothing was sent. again=true sends it as another version",
            *(self.server, self._name, record["version"]),
        )
        return Answer(record["id"], self._name, record["version"], record.get("pools"), season.name, self.server)

    def _arrived(self, client: Client, journal: Journal, season: Season, lost: list[Record]) -> Answer | str | None:
        """The newest version that came of lost calls; None where none came, and a reason where that cannot be told."""
        found = None
        for look in range(LOOKS):
            time.sleep(LOOK_SECONDS if look else 0)
            found = self._look(client, journal, season, lost)
            if isinstance(found, Answer):
                break
        return found

    def _look(self, client: Client, journal: Journal, season: Season, lost: list[Record]) -> Answer | str | None:
        versions = client.attempt(lambda: client.versions(self._name))
        if isinstance(versions, Failure):
            return f"the server does not say which versions it has ({versions.said})"
        before = lost[0].get("newest_before")
        known = journal.accepted_versions
        new = {one.version: one for one in versions if one.version not in known and one.version > (before or 0)}
        if not new:
            return None
        if before is None:
            return "which versions it had before is not known"
        calls = iter(lost)  # both are in the order of time, and each call made one version at most
        ours = all(any(_may_have_made(call, new[number]) for call in calls) for number in sorted(new))
        if not ours or journal.others_lost_since(lost[0]):
            return f"whether version {' or '.join(map(str, sorted(new)))} came of it cannot be told"
        newest = new[max(new)]
        return Answer(str(newest.id), newest.name, newest.version, None, season.name, self.server)

    def _listed(self, client: Client) -> list[SeasonSummary]:
        listed = client.attempt(client.get_seasons)
        if isinstance(listed, Failure):
            raise self._error(listed)
        if not listed:
            raise ScoutError(f"server={self.server} has no season now, so nothing can be sent to it: try again later")
        return listed

    def _check_version(self, client: Client, season: SeasonInfo, listed: list[SeasonSummary] | None) -> None:
        try:
            cogames.cli.compat.check_compat_version(season)
            return
        except typer.Exit:
            pass
        own = cogames.cli.compat._get_installed_compat()
        raise ScoutError(
            f"season={season.name} is for cogames {season.compat_version}: expected one for {own}, since this project "
            f"has cogames {importlib.metadata.version('cogames')}; {self._choice(client, season, listed)}"
        )

    def _choice(self, client: Client, season: SeasonInfo, listed: list[SeasonSummary] | None) -> str:
        """Which other seasons can be entered: those for this version of cogames that have a pool for newcomers."""
        versions = (None, cogames.cli.compat._get_installed_compat())
        others = [one for one in listed or self._listed(client) if one.name != season.name]
        names = [one.name for one in others if one.entry_pool and one.compat_version in versions]
        return f"choose season={' or '.join(names)}" if names else "this server has none"

    def _error(self, failure: Failure) -> ScoutError:
        """What to say of a failed request."""
        server, version = f"server={self.server}", importlib.metadata.version("cogames")
        retired = "cogames' last release, 0.28.0, has no command line any more: there may be no such server either"
        status, said = failure.status or 0, failure.said
        if failure.step == STORING:
            return ScoutError(
                f"{server} could not be sent {self._name}: its storage did not take it ({said}). Nothing was entered: "
                "call again, which asks for another place in it"
            )
        if failure.gone:
            return ScoutError(
                f"{server} cannot be reached ({failure.step}: {said}): expected the leaderboard's server; look at the "
                f"address and the network, or call again later. {retired}"
            )
        if status in (401, 403):
            return ScoutError(
                f"{server} refuses the token of {self.login_server} ({said}): expected one that may do this; log in "
                f"again with `cogames login --force{options_for(self.login_server)}`"
            )
        if status >= 500:
            return ScoutError(f"{server} failed ({failure.step}: {said}): nothing was entered; call again later")
        if status >= 400 and (status not in (404, 405) or failure.step.endswith(COMPLETE)):
            return ScoutError(
                f"{server} refuses {self._name} ({failure.step}: {said}): nothing was entered. Mend what it says, and "
                "call again"
            )
        return ScoutError(
            f"{server} is not the leaderboard that cogames {version} knows: {failure.step} was answered with {said}. "
            f"Look at the address. {retired}"
        )


def _may_have_made(call: Record, version: PolicyVersionInfo) -> bool:
    """Whether a version is of the time of a call, and not of an upload from elsewhere."""
    created = version.created_at if version.created_at.tzinfo else version.created_at.replace(tzinfo=UTC)
    later = (created - datetime.fromisoformat(call["time"])).total_seconds()
    return -CLOCK_SECONDS <= later <= COMPLETE_SECONDS + CLOCK_SECONDS


def _check_unchanged(bundle: Bundle) -> None:
    try:
        same = hashlib.sha256(bundle.path.read_bytes()).hexdigest() == bundle.sha256
    except OSError:
        same = False
    if not same:
        raise ScoutError(f"{bundle.path} is not the bundle that was made and proven: make it again")
