"""`sfumato coordinator backup | restore`: a coordinator's home as one encrypted file, and on another machine."""

from __future__ import annotations

from typing import Annotated

import typer

from sfumato_common.command_line import Backup, BackupFile, BackupPassphrase, HandOver, ask_passphrase, say
from sfumato_common.errors import PolicyRefusal
from sfumato_server.cli.home import Home


def backup(
    home: Home,
    out: BackupFile,
    hand_over: HandOver = False,
    passphrase_file: BackupPassphrase = None,
) -> None:
    """Write plan, keys, enrolments, models and packages into one encrypted file, while nothing runs."""
    from sfumato_server.coordinator.backup import write_backup

    passphrase = ask_passphrase(passphrase_file, "new passphrase of the backup", "--passphrase-file", new=True)
    said = write_backup(home, out, passphrase, hand_over=hand_over)
    say(f"'{out.name}' holds the coordinator of study '{said.study}'; published sets lie elsewhere, and are not in it")
    if hand_over:
        say(
            "this home is closed: it asks, enrols and signs nothing any more. Restore the file on the new machine, once"
        )
    else:
        say("it is as old as this minute: who is enrolled or revoked from now on, and what comes, it does not know")


def restore(
    home: Home,
    archive: Backup,
    passphrase_file: BackupPassphrase = None,
    only_copy: Annotated[
        bool, typer.Option("--only-copy", help="Say that no other copy of this home runs, or ever will; for scripts.")
    ] = False,
) -> None:
    """Make a coordinator's home from a backup; it asks nobody before a person says that it is the only one."""
    from sfumato_server.coordinator.backup import restore_backup, settle_copy

    said = restore_backup(
        archive, home, ask_passphrase(passphrase_file, "passphrase of the backup", "--passphrase-file")
    )
    how = "handed over" if said.handed_over else "backed up"
    say(f"the coordinator of study '{said.study}' is restored as it was {how} at {said.at}")
    if not said.handed_over:
        say(
            "what came since is not in it. Revoke again whom you revoked since, and withdraw again what you withdrew; "
            "rounds that were answered since are asked again, and sites send what they kept"
        )
    asked = f"Type '{said.study}' to say that no other copy of this home runs, or ever will"
    if not only_copy and typer.prompt(asked, default="") != said.study:
        raise PolicyRefusal("not settled: nobody is asked before 'sfumato coordinator run --only-copy'")
    settle_copy(home)
    say("at another address, give the ports a certificate of it ('rotate --name'), and sites join again with theirs")
