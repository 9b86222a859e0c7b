use super::*;

#[test]
fn jobs_get_users_of_their_own_unless_one_is_named() {
    assert_eq!(user_of_job(Some(1234), 7), 1234);
    assert_ne!(user_of_job(None, 7), user_of_job(None, 8));
    for job in [0, 7, 999, 1_000, u64::MAX] {
        let user = user_of_job(None, job);
        assert!(
            (JOB_UID_FIRST..JOB_UID_FIRST + JOB_UIDS).contains(&user),
            "{user}"
        );
    }
}

#[test]
fn waiting_is_bounded() {
    assert!(retry_after(1) < retry_after(3));
    assert_eq!(retry_after(u32::MAX), RETRY_MAX);
}

#[test]
fn a_builder_stops_where_waiting_does_not_help() {
    assert!(is_passing(&Refusal::unavailable("server-unreachable", "")));
    assert!(is_passing(&Refusal::denied("breaker-tripped", "")));
    assert!(!is_passing(&Refusal::denied("unknown-signer", "")));
    assert!(!is_passing(&Refusal::not_found("service", "builder")));
}

#[test]
fn one_builder_works_in_a_directory_and_clears_what_a_killed_one_left() {
    let work = tempfile::tempdir().unwrap();
    let stale = work.path().join("job-7-1/tree");
    fs::create_dir_all(&stale).unwrap();
    fs::write(work.path().join("kept"), "x").unwrap();
    let held = take_directory(work.path()).unwrap();
    assert!(!stale.exists() && work.path().join("kept").exists());
    assert_eq!(
        take_directory(work.path()).unwrap_err().code,
        "builder-running"
    );
    drop(held);
    take_directory(work.path()).unwrap();
}
