"""The ground of every stage: artifacts, storage, configuration, command lines, messages. Imports no other part of zsbir."""
