"""`sfumato-site backup | restore`: a home as one encrypted file, and on another machine."""

from __future__ import annotations

from typing import Annotated

import typer

from sfumato_client.cli.home import Home
from sfumato_common.command_line import Backup, BackupFile, BackupPassphrase, HandOver, ask_passphrase, say
from sfumato_common.errors import PolicyRefusal


def backup(
    home: Home,
    out: BackupFile,
    hand_over: HandOver = False,
    images: Annotated[
        bool, typer.Option("--images", help="With the store and its key, and all else that shows patients.")
    ] = False,
    passphrase_file: BackupPassphrase = None,
) -> None:
    """Write keys, policy, ledger, plans and answers into one encrypted file; images only where asked."""
    from sfumato_client.site.backup import write_backup
    from sfumato_client.site.home import SiteHome

    passphrase = ask_passphrase(passphrase_file, "new passphrase of the backup", "--passphrase-file", new=True)
    said = write_backup(SiteHome(home), out, passphrase, images=images, hand_over=hand_over)
    say(f"'{out.name}' holds the home of '{said.site}', with a ledger of {said.entries} entries")
    if not images:
        say("left out: images, candidates that nobody let go, local reports, logs; ingest again where it is restored")
    if hand_over:
        say(
            "this home is closed: nothing is charged or sent from it any more. Restore the file on the new machine, "
            "once, and then erase this home's images by 'sfumato-site erase-store'"
        )
    else:
        say("it is as old as this minute: what is charged from now on it does not know")


def restore(
    home: Home,
    archive: Backup,
    passphrase_file: BackupPassphrase = None,
    only_copy: Annotated[
        bool, typer.Option("--only-copy", help="Say that no other copy of this home is in use; for scripts.")
    ] = False,
) -> None:
    """Make a home from a backup; nothing is charged in it before coordinators of open studies were heard."""
    from sfumato_client.site.backup import restore_backup
    from sfumato_client.site.home import SiteHome
    from sfumato_client.site.restored import go_on

    passphrase = ask_passphrase(passphrase_file, "passphrase of the backup", "--passphrase-file")
    said, unheard = restore_backup(archive, home, passphrase)
    how = "handed over" if said.handed_over else "backed up"
    say(f"the home of '{said.site}' is restored as it was {how} on {said.at}")
    if not said.handed_over:
        say(
            "it does not know what came after that: accept again, before anything else, plans that were accepted "
            "since, so that their coordinators are heard too; give again to 'withdraw' who withdrew since"
        )
    if unheard:
        say(
            f"nothing is charged before the coordinators of {', '.join(unheard)} were heard: start 'sfumato-site run', "
            "and their questions tell what this ledger lacks"
        )
    else:
        say("no study is open here whose coordinator could tell what another copy was charged since then")
        if not only_copy and typer.prompt(f"Type '{said.site}' to say that no other copy is in use", default="") != (
            said.site
        ):
            raise PolicyRefusal("not settled: nothing is charged before 'sfumato-site ledger recover'")
        go_on(SiteHome(home), "a person said that no other copy of this ledger is in use")
    if not said.images:
        say("it has no images: run 'sfumato-site ingest'")
