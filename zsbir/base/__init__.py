"""What every stage stands on: artifacts, storage, configuration, command lines, messages. Imports no other part of zsbir."""
