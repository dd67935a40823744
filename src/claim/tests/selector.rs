//! Selectors of labels and nodes, operator by operator.

use super::super::selector::{
    LabelSelector, Labels, NodeSelector, NodeTerm, Operator, Requirement,
};

fn requirement(key: &str, operator: Operator, values: &[&str]) -> Requirement {
    let values = values.iter().map(|value| (*value).to_owned()).collect();
    Requirement { key: key.to_owned(), operator, values }
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn operators_accept_values_and_absence() {
    use Operator::{DoesNotExist, Exists, Gt, In, Lt, NotIn};
    let rows: [(Operator, &[&str], Option<&str>, bool); 23] = [
        (In, &["a", "b"], Some("b"), true),
        (In, &["a"], Some("b"), false),
        (In, &["a"], None, false),
        (In, &[""], Some(""), true),
        (NotIn, &["a"], Some("b"), true),
        (NotIn, &["a"], Some("a"), false),
        (NotIn, &["a"], None, true),
        (Exists, &[], Some(""), true),
        (Exists, &[], None, false),
        (DoesNotExist, &[], None, true),
        (DoesNotExist, &[], Some("a"), false),
        (Gt, &["5"], Some("6"), true),
        (Gt, &["5"], Some("5"), false),
        (Gt, &["5"], Some("10"), true),
        (Gt, &["-5"], Some("-4"), true),
        (Gt, &["5"], Some("x"), false),
        (Gt, &["x"], Some("6"), false),
        (Gt, &["5"], None, false),
        (Gt, &["5", "6"], Some("7"), false),
        (Lt, &["5"], Some("4"), true),
        (Lt, &["5"], Some("5"), false),
        (Lt, &["5"], None, false),
        (Lt, &[], Some("1"), false),
    ];
    for (operator, values, value, wanted) in rows {
        let found = requirement("k", operator, values).accepts(value);
        assert_eq!(found, wanted, "{operator:?} {values:?} of {value:?}");
    }
}

#[test]
fn label_selector_needs_all_of_its_conditions() {
    let both = LabelSelector {
        labels: labels(&[("tier", "db")]),
        expressions: vec![requirement("disk", Operator::In, &["ssd", "nvme"])],
    };
    let rows: [(&[(&str, &str)], bool); 4] = [
        (&[("tier", "db"), ("disk", "ssd")], true),
        (&[("tier", "db"), ("disk", "nvme"), ("more", "x")], true),
        (&[("tier", "db")], false),
        (&[("tier", "web"), ("disk", "ssd")], false),
    ];
    for (pairs, wanted) in rows {
        assert_eq!(both.selects(&labels(pairs)), wanted, "{pairs:?}");
    }
    assert!(LabelSelector::default().selects(&labels(&[])), "no condition");
}

#[test]
fn node_selector_needs_one_of_its_terms() {
    let term = |expressions, fields| NodeTerm { expressions, fields };
    let named = requirement("metadata.name", Operator::In, &["n1"]);
    let ssd = requirement("disk", Operator::In, &["ssd"]);
    let other = requirement("metadata.uid", Operator::In, &["n1"]);
    let rows = [
        (vec![], false),
        (vec![NodeTerm::default()], false),
        (vec![term(vec![ssd.clone()], vec![])], true),
        (vec![term(vec![], vec![named.clone()])], true),
        (vec![term(vec![ssd.clone()], vec![named.clone()])], true),
        (vec![term(vec![], vec![other])], false),
        (vec![NodeTerm::default(), term(vec![ssd], vec![])], true),
        (vec![term(vec![requirement("disk", Operator::DoesNotExist, &[])], vec![named])], false),
    ];
    for (terms, wanted) in rows {
        let selector = NodeSelector { terms };
        assert_eq!(selector.selects("n1", &labels(&[("disk", "ssd")])), wanted, "{selector:?}");
    }
}
