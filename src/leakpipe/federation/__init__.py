"""Federated averaging: rounds of local training and averaging, pretraining, and the files that they leave."""
