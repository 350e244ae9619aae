"""Federated averaging: one client's local training, the server, and rounds of both."""
