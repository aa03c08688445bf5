"""What an astronomer looks at and sends on: contact sheets, an offline map, tables, search by example, assignment."""
