"""Images x backbone x engine -> store.

    scanning   what the source holds now, and which rows are new, changed, moved, relabelled
    pipeline   decoding in threads or processes beside the forward pass, so far ahead and no further
    shards     the unit of work: the rows of one shard, computed
    jobs       what is asked
    computing  plan, compute, commit; an open plan first
    running    one extraction from start to end
    deriving   activations at a cut from cached ones of a deeper cut, without the pictures
    agreement  a few rows computed again before a cache is extended by other versions

A picture is decoded once an extraction; a label never enters a shard.
"""
