"""The cache on disk: what is there, what it is worth, and how it gets there without ever lying.

    files      durable writing: temporary name, fsync, rename, fsync of the folder
    locks      one writer at a time
    leases     the same where a file system has no locks
    documents  JSON files that carry their own digest
    hdf5       plain HDF5 files of contiguous, aligned arrays
    plain      HDF5 files for others: texts, groups, any size; with `hdf5` all that imports h5py
    layout     a strict reader of those, and of no other HDF5 files
    index      one row a sample: path, content hash, labels, split, group, stat key
    shards     activations of one stream, with the content hashes of their rows
    manifest   the one commit point: what is in force
    plan       which rows go into which shard, a pure function of what is committed and missing
    cache      opening a cache and reading its rows; the room's front door
    mapped     rows of a stream for the solver, read when they are indexed
    arrays     the same for people: parts of the map where that is possible
    writing    holding a cache for writing: shards, indices, commits
    findings   what each probe found, row by row
    journal    what ran and when; never part of what is compared
    upkeep     verify, what repair drops, and prune

This room knows nothing of pictures, networks or heads: it is given arrays and hashes.
"""
