//! What every store promises, and what the SQLite one does when its disk, its file or its neighbours misbehave.

#[path = "store/contract.rs"]
mod contract;
#[path = "store/crash.rs"]
mod crash;
#[path = "store/damage.rs"]
mod damage;
#[path = "store/failing_disk.rs"]
mod failing_disk;
#[path = "store/fixtures.rs"]
mod fixtures;
#[path = "store/full_disk.rs"]
mod full_disk;
#[path = "store/neighbours.rs"]
mod neighbours;
#[path = "store/strange_rows.rs"]
mod strange_rows;

/// Mounts every behaviour of `contract` under each implementation: what the fake passes is what the real one passes.
macro_rules! every_store {
    ($($behaviour:ident)*) => {
        mod memory {
            $(#[tokio::test]
            async fn $behaviour() {
                crate::contract::$behaviour(&crate::fixtures::InMemory::new()).await;
            })*
        }
        mod sqlite {
            $(#[tokio::test]
            async fn $behaviour() {
                crate::contract::$behaviour(&crate::fixtures::InFile::new()).await;
            })*
        }
    };
}

every_store! {
    a_committed_change_is_there_after_reopening_in_every_part
    webhooks_come_in_name_order_and_an_unknown_one_is_nothing
    a_batch_is_all_or_nothing
    a_seq_that_does_not_rise_is_a_conflict
    an_empty_batch_is_fine
    a_secret_committed_again_is_left_and_other_bytes_for_it_are_refused
    secrets_outlive_everything_that_is_committed_later
    the_journal_gives_the_newest_lines_oldest_first
    the_event_log_keeps_the_newest_entries_from_a_start_on
    an_attempt_is_filled_in_and_never_emptied
    an_attempt_keeps_its_secret
    evidence_counts_a_body_once_per_secret
    probes_under_keys_that_are_gone_are_forgotten
    a_probe_is_noted_once_per_replica_and_secret
    memos_are_replaced_and_null_deletes
    the_stamp_is_that_of_the_record
    every_opening_has_a_greater_epoch_and_the_same_id
    an_older_opening_is_fenced_off
    a_closed_store_takes_nothing
    a_commit_given_up_half_way_is_whole_or_nothing_and_the_next_one_goes_through
}
