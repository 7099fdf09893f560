import math

from agnet.training.loop.selection import Selection


def chosen(by, values, patience=0, start=0):
    """Which epochs were the best so far, and after which it was over."""
    selection = Selection(by, patience, start)
    best = []
    for epoch, value in enumerate(values, start=1):
        if selection.is_best(epoch, {"val_loss": 1.0, "val_top1": 0.5} | {by: value}):
            best.append(epoch)
        if selection.is_over(epoch):
            return best, epoch
    return best, None


def test_accuracy_is_better_higher_and_loss_lower_and_of_equals_the_first_is_kept():
    assert chosen("val_top1", [0.2, 0.6, 0.6, 0.4, 0.7]) == ([1, 2, 5], None)
    assert chosen("val_loss", [2.0, 1.5, 1.5, 1.7, 1.1]) == ([1, 2, 5], None)


def test_patience_counts_epochs_since_the_best():
    assert chosen("val_loss", [2.0, 1.5, 1.6, 1.5, 1.0], patience=2) == ([1, 2], 4)
    assert chosen("val_loss", [2.0, 1.5, 1.6, 1.4, 1.5, 1.5], patience=2) == ([1, 2, 4], 6)


def test_patience_does_not_count_the_epochs_of_an_earlier_phase():
    assert chosen("val_loss", [1.0, 2.0, 2.0, 1.5, 1.6, 1.1], patience=2, start=3) == ([1], 5)
    assert chosen("val_loss", [1.0, 2.0, 2.0, 0.9, 1.6, 1.1], patience=2, start=3) == ([1, 4], 6)


def test_a_loss_that_is_no_number_is_never_better():
    assert chosen("val_loss", [math.nan, 3.0, math.nan, 2.0]) == ([1, 2, 4], None)


def test_without_validation_the_last_epoch_counts_and_patience_does_not():
    selection = Selection("val_loss", patience=1)
    assert all(selection.is_best(epoch, {"train_loss": 1.0}) and not selection.is_over(epoch) for epoch in (1, 2, 3))


def test_its_fields_resume_it():
    selection = Selection("val_loss", patience=2)
    selection.is_best(1, {"val_loss": 1.0})
    again = Selection(**vars(selection))
    assert not again.is_best(2, {"val_loss": 1.0}) and not again.is_over(2) and again.is_over(3)
