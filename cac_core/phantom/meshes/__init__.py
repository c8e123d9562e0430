"""Hearts from anatomical meshes, varied and set into chests."""
