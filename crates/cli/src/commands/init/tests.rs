use super::*;

#[test]
fn an_environment_that_is_not_classified_is_production() {
    let plain: EnvironmentOption = "shop=8080".parse().unwrap();
    assert_eq!(plain.sensitivity, Sensitivity::Production);
    let named: EnvironmentOption = "try:staging@shop=8081".parse().unwrap();
    assert_eq!(named.sensitivity, Sensitivity::Staging);
    assert_eq!(named.repository.unwrap().as_str(), "shop");
    for bad in [
        "shop",
        "shop=0",
        "shop=70000",
        "shop:dev=1",
        "=1",
        "shop:=1",
    ] {
        assert!(bad.parse::<EnvironmentOption>().is_err(), "{bad}");
    }
}

#[test]
fn a_name_and_a_path_are_both_needed() {
    assert!("shop=/srv/shop".parse::<Named<RepositoryId>>().is_ok());
    for bad in ["shop", "shop=", "=x", "UPPER CASE=x"] {
        assert!(bad.parse::<Named<RepositoryId>>().is_err(), "{bad}");
    }
}

/// The example is a record as it stands, so that the first try works.
#[test]
fn the_example_agent_is_a_valid_record() {
    let plan = InitPlan {
        administrators: vec![("ada".parse().unwrap(), Vec::new())],
        quorum: 1,
        solo: true,
        origin: "here/log".into(),
        trust_domain: "here".into(),
        repositories: Vec::new(),
        environments: Vec::new(),
        agents: Vec::new(),
        store: None,
        listen: None,
        key_floor: floor_for(&[]),
    };
    let text = examples::agent(&plan, Timestamp::from_ms(1_795_250_000_000));
    let agent: Agent = portcullis_model::document::from_toml("agent record", &text).unwrap();
    assert_eq!(agent.owner.as_str(), "ada");
    portcullis_model::manifest::Activation::Agent(agent)
        .validate()
        .unwrap();
}
