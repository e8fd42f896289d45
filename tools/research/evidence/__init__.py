"""The bench behind every table of accuracy: rows that are run, records of them, tables of records.

``rows.yaml`` says what the rows are. ``bench`` runs them, ``records`` keeps what came of each,
``tables`` and ``plots`` write the documents from the records alone.
"""
