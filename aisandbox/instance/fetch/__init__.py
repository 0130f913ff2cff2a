"""Getting a model from a hub into the cache on the data volume.

| module | what |
|---|---|
| `request` | which model, and which of its files |
| `cache` | what lies on disk, complete and verified; asks no network and needs no library |
| `download` | the caller's side: runs a worker, watches over it, reports progress |
| `worker` | a process of its own that talks to the hub with `huggingface_hub`; it can be killed when it hangs |
| `blobs` | the worker's resumable transfer of large files |
| `failures` | what an error means for the user |
"""
