mod behaviours;
mod crash;
mod file;
mod fixtures;
mod nobody;
mod program;
mod trouble;

/// Mounts the one suite for a back-end: `$make` gives a fresh, empty one.
macro_rules! contract {
    ($name:ident, $make:expr, [$($behaviour:ident),* $(,)?]) => {
        mod $name {
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $behaviour() {
                    behaviours::$behaviour($make).await;
                }
            )*
        }
    };
}

/// The suite, in one place: a behaviour that is added here is asked of every back-end.
macro_rules! mount {
    ($name:ident, $make:expr) => {
        contract!(
            $name,
            $make,
            [
                nothing_is_there_at_first,
                what_was_written_first_is_read_back,
                a_first_write_does_not_replace_what_is_there,
                a_write_that_expects_another_generation_is_refused_and_changes_nothing,
                a_write_over_nothing_that_expects_something_is_refused,
                the_same_write_again_is_fine,
                another_content_under_the_same_generation_needs_the_right_expectation,
                the_generation_rises_and_never_falls,
                more_keys_than_slots_are_refused_and_change_nothing,
                what_no_keystore_can_hold_is_refused,
                of_many_writers_exactly_one_wins,
                a_reader_sees_whole_contents_only,
                a_reload_may_be_repeated,
                a_healthy_keystore_has_nothing_fatal_to_say,
                no_error_and_no_place_shows_a_secret,
            ]
        );
    };
}

mount!(memory, fixtures::memory());
mount!(memory_with_two_slots, fixtures::memory_with_two_slots());
mount!(file_json, fixtures::json_file());
mount!(file_env, fixtures::env_file());
mount!(exec, fixtures::program());
