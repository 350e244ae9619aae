"""The paper's claims, and questions nobody has answered, as checks over the tables: rules stated before the numbers."""
