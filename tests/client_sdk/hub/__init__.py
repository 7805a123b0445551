"""The tests of the Hub's records and verbs, on real files; devices meet through the updates that they exchange."""
