from xml.etree import ElementTree

from made_reports import judged, make_report

from compressor.validation.report.junit import render_junit


def parsed(gates):
    return ElementTree.fromstring(render_junit(make_report(gates=gates)))  # noqa: S314 -- made by this test


def test_each_gate_is_a_case_with_what_came_of_it():
    statuses = ("fail", "pass", "warn", "inconclusive")
    gates = [judged("accuracy_drop", "<= 0.01", 0.0149, status, note="<&\"'>") for status in statuses]
    root = parsed(gates)
    suite = root.find("testsuite")
    for element in (root, suite):
        counts = {name: element.get(name) for name in ("tests", "failures", "errors", "skipped")}
        assert counts == {"tests": "4", "failures": "1", "errors": "0", "skipped": "2"}
    cases = suite.findall("testcase")
    assert [case.get("name") for case in cases] == ["accuracy_drop <= 0.01"] * 4
    assert [case[0].tag for case in cases] == ["failure", "system-out", "skipped", "skipped"]
    sentence = "accuracy_drop is 0.0149, bound <= 0.01; <&\"'>"
    assert cases[0][0].get("message") == cases[0][0].text == cases[1][0].text == sentence
    assert cases[2][0].get("message") == f"warn: {sentence}"
    assert cases[3][0].text == f"inconclusive: {sentence}"


def test_no_gates_are_no_cases():
    assert parsed([]).get("tests") == "0"
