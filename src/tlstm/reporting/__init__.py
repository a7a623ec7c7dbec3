"""What figures, tables, pages and the report are made of; reads records, imports no torch."""
