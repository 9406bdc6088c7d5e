"""The tar files of a batch run: unpacked where that was asked for, else named among what was left out."""

from __future__ import annotations

from dataclasses import dataclass, field

from daemon import logs
from daemon.arrivals import tarfiles
from daemon.config.options import Config
from daemon.ledger.batchwork import LeftOut


@dataclass
class TarFiles:
    """left_out : members that were not taken, and tar files that were not asked to be unpacked
    blocked : in words, tar files that could not be unpacked
    """

    left_out: list[LeftOut] = field(default_factory=list)
    blocked: list[str] = field(default_factory=list)


def tar_files(config: Config, *, unpack: bool) -> TarFiles:
    """What became of the tar files in the drop folders."""
    answer, closed = TarFiles(), []
    for path in tarfiles.found(config.drop_folders):
        if not unpack:
            if not tarfiles.folder_of(path).is_dir():
                closed.append(path.name)
            continue
        try:
            made = tarfiles.unpack(path)
        except (tarfiles.CannotUnpack, OSError) as error:
            answer.blocked.append(str(error))
            logs.get().error("tar_not_unpacked", path=str(path), error=str(error))
            continue
        logs.get().info(
            "tar_unpacked", path=str(path), folder=str(made.folder), files=made.files, new=made.new
        )
        for why, count in made.left_out.items():
            if why != "folder":
                answer.left_out.append(LeftOut("in a tar file", why, count, path.name))
    if closed:
        why = "a tar file; --unpack takes the frames out of it"
        answer.left_out.append(LeftOut("not opened", why, len(closed), closed[0]))
    return answer
