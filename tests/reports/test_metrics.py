import math

from sparsedet.reports.metrics import metrics_table


def test_a_row_for_each_metric_of_each_task():
    dense = {"bbox": {"AP": 40.0, "AP50": 60.0, "AP-cat": 1.0}, "segm": {"AP": math.nan}}
    compact = {"bbox": {"AP": 39.25, "AP50": 60.5}, "segm": {"AP": 3.0}, "voc": {"mAP": 7.0}}
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in metrics_table({"dense": dense, "compact": compact}).splitlines()
    ]
    assert rows[0] == ["", "dense", "compact"]
    assert rows[2:] == [
        ["bbox AP", "40.00", "39.25 (-0.75)"],
        ["bbox AP50", "60.00", "60.50 (+0.50)"],
        ["segm AP", "n/a", "3.00"],
        ["voc mAP", "n/a", "7.00"],
    ]


def test_several_data_sets():
    table = metrics_table({"one": {"photos": {"sem_seg": {"mIoU": 12.0}}}})
    assert "| photos sem_seg mIoU | 12.00 |" in table
