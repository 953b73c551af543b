"""The Neo4j engine of the graph store, and a local server for machines without Docker."""
