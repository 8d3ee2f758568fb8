"""Gates as JUnit XML, which GitLab, Jenkins and GitHub's actions show as tests.

A broken bound is a failure. What is only a warning, or inconclusive, is a skipped test with its reason:
viewers show that apart from passed tests and print the reason, which they do not for a passed test's output.
"""

from __future__ import annotations

from xml.etree import ElementTree

from compressor.validation.schema import Report

SUITE = "compress validate"


def render_junit(report: Report) -> str:
    """Return one test case a gate, in the order of the gates."""
    statuses = [gate.status for gate in report.gates]
    counts = {
        "tests": len(statuses),
        "failures": statuses.count("fail"),
        "errors": 0,
        "skipped": statuses.count("warn") + statuses.count("inconclusive"),
    }
    attributes = {"name": SUITE, **{name: str(count) for name, count in counts.items()}}
    root = ElementTree.Element("testsuites", attributes)
    suite = ElementTree.SubElement(root, "testsuite", attributes)
    for gate in report.gates:
        case = ElementTree.SubElement(suite, "testcase", classname=SUITE, name=gate.gate, time="0")
        if gate.status != "pass":
            tag = "failure" if gate.status == "fail" else "skipped"
            message = gate.sentence if gate.status == "fail" else f"{gate.status}: {gate.sentence}"
            ElementTree.SubElement(case, tag, message=message).text = message
        else:
            ElementTree.SubElement(case, "system-out").text = gate.sentence
    ElementTree.indent(root)
    text: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return text.decode() + "\n"
