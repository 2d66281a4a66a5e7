"""One declaration a table."""

from benchmarks.core import Table
from benchmarks.tables import (
    gloria_controls,
    gloria_table1,
    gloria_table2,
    gloria_table3,
    gloria_table4,
    maco_controls,
    maco_table1,
    maco_table2,
    maco_table3,
    maco_table4,
    maco_table5,
    mgca_controls,
    mgca_table1,
    mgca_table2,
    mgca_table3,
    mgca_table4,
    mgca_table5,
    mgca_table6,
)

TABLES: dict[str, Table] = {
    table.id: table
    for table in (
        gloria_table1.TABLE,
        gloria_table2.TABLE,
        gloria_table3.TABLE,
        gloria_table4.TABLE,
        gloria_controls.TABLE,
        mgca_table1.TABLE,
        mgca_table2.TABLE,
        mgca_table3.TABLE,
        mgca_table4.TABLE,
        mgca_table5.TABLE,
        mgca_table6.TABLE,
        mgca_controls.TABLE,
        maco_table1.TABLE,
        maco_table2.TABLE,
        maco_table3.TABLE,
        maco_table4.TABLE,
        maco_table5.TABLE,
        maco_controls.TABLE,
    )
}
