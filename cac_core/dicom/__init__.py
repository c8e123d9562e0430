"""From files of an archive to CT volumes in HU: index, selection of the series, assembly."""
