import pytest

from mlops_assets.rollout.approval import Approval, Ruling, rule_on_deployment, rule_on_request

VERSIONS = {"m_model": "a" * 64, "m_evaluation": "b" * 64, "m_training_set": "c" * 64}


def approved(**changes: object) -> Approval:
    facts = {"decision": "approve", "approver": "ana", "reason": "auc +0.02", "bound_to": VERSIONS}
    return Approval(**{**facts, **changes})  # type: ignore[arg-type]


def request(**changes: object) -> Ruling:
    facts = {
        "mode": "auto",
        "approver": "",
        "decision": "approve",
        "outcome": "promote",
        "gate_reason": "better",
        "model": "m",
    }
    return rule_on_request(**{**facts, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("outcome", ["reject", "inconclusive"])
@pytest.mark.parametrize("mode", ["auto", "manual"])
def test_nobody_approves_past_the_gate(outcome: str, mode: str) -> None:
    ruling = request(mode=mode, approver="ana", outcome=outcome, gate_reason="log loss 0.9 vs 0.5")
    assert not ruling.allowed
    assert outcome in ruling.reason and "log loss 0.9 vs 0.5" in ruling.reason


def test_manual_without_a_person_is_pending_and_says_what_to_type() -> None:
    ruling = request(mode="manual")
    assert not ruling.allowed
    assert "pending" in ruling.reason and "mlops approve m --by" in ruling.reason


@pytest.mark.parametrize("outcome", ["promote", "reject"])
def test_a_person_may_reject_whatever_the_gate_says(outcome: str) -> None:
    ruling = request(mode="manual", approver="ana", decision="reject", outcome=outcome)
    assert ruling.allowed and ruling.reason == "rejected by ana"


def test_a_rejection_by_nobody_is_none() -> None:
    ruling = request(decision="reject")
    assert not ruling.allowed and "--reject --by NAME" in ruling.reason


def test_auto_approves_what_the_gate_promotes() -> None:
    assert request().allowed


def test_a_manual_approval_names_the_person() -> None:
    ruling = request(mode="manual", approver="ana")
    assert ruling.allowed and "ana" in ruling.reason


@pytest.mark.parametrize("key", sorted(VERSIONS))
def test_any_change_upstream_voids_the_approval(key: str) -> None:
    ruling = rule_on_deployment(approved(), {**VERSIONS, key: "d" * 64}, model="m")
    assert not ruling.allowed
    assert "void" in ruling.reason and key in ruling.reason


def test_a_version_that_vanished_voids_the_approval() -> None:
    current = {key: value for key, value in VERSIONS.items() if key != "m_model"}
    assert not rule_on_deployment(approved(), current, model="m").allowed


def test_no_approval_deploys_nothing() -> None:
    assert not rule_on_deployment(None, VERSIONS, model="m").allowed


def test_a_rejection_deploys_nothing() -> None:
    ruling = rule_on_deployment(approved(decision="reject", reason="too odd"), VERSIONS, model="m")
    assert not ruling.allowed and "too odd" in ruling.reason


def test_unchanged_versions_deploy() -> None:
    assert rule_on_deployment(approved(), dict(VERSIONS), model="m").allowed


def test_the_version_follows_every_fact() -> None:
    same, other = approved(), approved(approver="bob")
    assert same.version == approved().version != other.version
    assert approved(bound_to={**VERSIONS, "m_model": "x"}).version != same.version
