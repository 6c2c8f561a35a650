"""A cluster of several machines on one: to rehearse the loss of a node, of a network or of a store (docs/rehearsal.md).

Each machine is a set of namespaces of the kernel with its own network address, host name, processes, /tmp, /dev/shm and HOME, and
thus its own caches. The machines share nothing that can be written but object storage, which they reach over a bridge.
"""
