"""What `showhow check` prints."""

from showhow.evidence.settings import axis_in_words
from showhow.evidence.wording import counted, listed
from showhow.study.study import Study


def print_check(study: Study, file: str) -> None:
    """Print what a valid study compares. Raises UserError for settings that DeepSpeed refuses."""
    if study.sharding.deepspeed:
        from showhow.training.deepspeed_engine import check_settings  # takes seconds to import

        check_settings(study.sharding.deepspeed)
    names, seeds = [arm.name for arm in study.arms], counted(len(study.seeds), "seed")
    arms = f"{len(names)} arms ({'; '.join(names)})" if any("," in name for name in names) else listed(names)
    within = ""
    if len(study.settings) > 1:
        axes = listed([axis_in_words(axis) for axis in study.within])
        within = f" in each of {len(study.settings)} settings of {axes}"
    print(f"{file}: study {study.name} is valid; it compares {arms}{within} with {seeds}")
