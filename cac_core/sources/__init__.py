"""Sources of studies beside plain folders: zip and tar archives, DICOMDIR media, PACS."""
