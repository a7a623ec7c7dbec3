"""The parts of figures, tables, pages and the report; reads records, imports no torch."""
