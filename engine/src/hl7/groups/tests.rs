//! Tests of segment groups: whose is what, in good order and in bad.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;

fn message(structure: &str, segments: &str) -> Message {
    let (code, event) = structure.split_once('_').unwrap();
    let body = segments
        .split_whitespace()
        .fold(String::new(), |text, name| format!("{text}\r{}", name.replace(':', "|")));
    let raw = format!("MSH|^~\\&|||||||{code}^{event}{body}");
    Message::parse(Bytes::from(raw), encoding_rs::UTF_8).unwrap()
}

/// The tree as text: segments by name and first field, groups in brackets.
fn show(group: &Group<'_>) -> String {
    let own = group.segments.iter().filter(|one| one.name() != "MSH");
    let own = own.map(|one| format!("{}{}", one.name(), one.field(1).text().unwrap_or_default()));
    let inner = group.groups.iter().map(|one| format!("{}({})", one.name.to_lowercase(), show(one)));
    own.chain(inner).collect::<Vec<_>>().join(" ")
}

fn check(structure: &str, segments: &str, expected: &str) {
    assert_eq!(show(&message(structure, segments).groups()), expected, "{structure}: {segments}");
}

#[test]
fn results_belong_to_their_order() {
    check(
        "ORU_R01",
        "PID PD1 NTE:a PV1 ORC:1 OBR:1 NTE:b OBX:1 NTE:c NTE:d OBX:2 SPM:1 OBX:3 ORC:2 OBR:2 OBX:4 OBR:3 OBX:5",
        "patient_result(patient(PID PD1 NTEa visit(PV1)) \
         order_observation(ORC1 OBR1 NTEb observation(OBX1 NTEc NTEd) observation(OBX2) specimen(SPM1 OBX3)) \
         order_observation(ORC2 OBR2 observation(OBX4)) order_observation(OBR3 observation(OBX5)))",
    );
}

#[test]
fn several_patients_have_their_own_results() {
    check(
        "ORU_R01",
        "PID:1 OBR:1 OBX:1 PID:2 PV1 OBR:2 OBX:2",
        "patient_result(patient(PID1) order_observation(OBR1 observation(OBX1))) \
         patient_result(patient(PID2 visit(PV1)) order_observation(OBR2 observation(OBX2)))",
    );
}

#[test]
fn odd_order_is_forgiven() {
    check("ORU_R01", "OBX:1 NTE", "patient_result(order_observation(observation(OBX1 NTE)))");
    check(
        "ORU_R01",
        "PID OBR:1 SPM:1 OBX:1 OBX:2",
        "patient_result(patient(PID) order_observation(OBR1 specimen(SPM1) observation(OBX1) observation(OBX2)))",
    );
    check(
        "ORU_R01",
        "OBR:1 OBX:1 PID PV1 OBX:2 ZZZ",
        "patient_result(order_observation(OBR1 observation(OBX1) observation(OBX2 ZZZ)) patient(PID visit(PV1)))",
    );
    check("ORU_R01", "NTE:0 PID", "NTE0 patient_result(patient(PID))");
    check(
        "ORU_R01",
        "PID OBX:0 ORC:1 AL1 OBR:1 OBX:1",
        "patient_result(patient(PID AL1) order_observation(observation(OBX0)) order_observation(ORC1 OBR1 observation(OBX1)))",
    );
}

#[test]
fn every_structure_has_its_groups() {
    check(
        "OML_O21",
        "PID PV1 ORC:1 TQ1 OBR:1 DG1 OBX:1 SPM:1 SAC ORC:2 OBR:2",
        "patient(PID visit(PV1)) order(ORC1 OBR1 DG1 timing(TQ1) observation(OBX1) specimen(SPM1 container(SAC))) order(ORC2 OBR2)",
    );
    check(
        "ORM_O01",
        "PID PV1 IN1 AL1 ORC OBR:1 NTE OBX OBR:2",
        "patient(PID AL1 visit(PV1) insurance(IN1)) order(ORC OBR1 NTE observation(OBX)) order(OBR2)",
    );
    check(
        "RDE_O11",
        "PID ORC RXO RXE RXR RXC OBX ORC:2 RXE:2",
        "patient(PID) order(ORC RXO RXE RXR RXC observation(OBX)) order(ORC2 RXE2)",
    );
    check(
        "VXU_V04",
        "PID NK1 ORC:1 RXA:1 RXR OBX:1 OBX:2 ORC:2 RXA:2 OBX:3",
        "patient(PID NK1) order(ORC1 RXA1 RXR observation(OBX1) observation(OBX2)) order(ORC2 RXA2 observation(OBX3))",
    );
    check(
        "PPR_PC1",
        "PID PV1 PRB:1 NTE ROL OBX:1 GOL:1 OBX:2 ORC OBR OBX:3 PRB:2",
        "patient(PID visit(PV1)) problem(PRB1 NTE ROL observation(OBX1) goal(GOL1 observation(OBX2) order(ORC OBR observation(OBX3)))) problem(PRB2)",
    );
    check(
        "SIU_S12",
        "SCH NTE PID PV1 RGS AIS NTE:x AIL AIP RGS:2 AIG",
        "SCH NTE patient(PID visit(PV1)) resources(RGS service(AIS NTEx) location_resource(AIL) personnel_resource(AIP)) resources(RGS2 general_resource(AIG))",
    );
    check(
        "MDM_T02",
        "EVN PID PV1 TXA OBX:1 NTE OBX:2",
        "EVN PID PV1 TXA observation(OBX1 NTE) observation(OBX2)",
    );
    check(
        "ADT_A01",
        "EVN PID PV1 OBX AL1 DG1 PR1 ROL IN1 IN2 ZZZ",
        "EVN PID PV1 OBX AL1 DG1 procedure(PR1 ROL) insurance(IN1 IN2 ZZZ)",
    );
    check("ADT_A40", "EVN PID:1 MRG:1 PID:2 MRG:2 PV1", "EVN patient(PID1 MRG1) patient(PID2 MRG2 PV1)");
    check(
        "DFT_P03",
        "EVN PID PV1 FT1:1 PR1 FT1:2 IN1",
        "EVN PID PV1 financial(FT11 procedure(PR1)) financial(FT12) insurance(IN1)",
    );
    check(
        "REF_I12",
        "RF1 PRD:1 CTD PRD:2 PID DG1 OBR OBX NTE PV1",
        "RF1 PID DG1 PV1 provider_contact(PRD1 CTD) provider_contact(PRD2) observation(OBR results(OBX NTE))",
    );
    check("XXX_X01", "PID OBX NTE", "PID OBX NTE");
}

#[test]
fn specimens_stand_before_their_orders_or_in_them() {
    check(
        "OUL_R22",
        "PID SPM OBX:0 SAC OBR:1 ORC OBX:1 OBR:2 OBX:2 SPM:2 OBR:3",
        "patient(PID) specimen(SPM OBX0 container(SAC) order(OBR1 ORC result(OBX1)) order(OBR2 result(OBX2))) specimen(SPM2 order(OBR3))",
    );
    check(
        "OUL_R24",
        "PID OBR:1 ORC:1 TQ1 SPM:1 SAC OBX:1 OBR:2 ORC:2 OBX:2 SPM:2 OBX:3",
        "patient(PID) order(OBR1 ORC1 timing(TQ1) specimen(SPM1 container(SAC)) result(OBX1)) order(OBR2 ORC2 result(OBX2) specimen(SPM2 OBX3))",
    );
    check(
        "OML_O33",
        "PID PV1 SPM:1 OBX:0 ORC:1 TQ1 OBR:1 OBX:1 PRT NTE ORC:2 OBR:2 SPM:2 ORC:3 OBR:3",
        "patient(PID visit(PV1)) specimen(SPM1 OBX0 order(ORC1 OBR1 timing(TQ1) observation(OBX1 PRT NTE)) order(ORC2 OBR2)) specimen(SPM2 order(ORC3 OBR3))",
    );
}

#[test]
fn the_structure_of_msh_9_3_wins() {
    assert_eq!(of("ADT", "A08", "ADT_A01").name, "ADT_A01");
    assert_eq!(of("ADT", "A31", "ORU_R01").name, "ORU_R01");
    assert_eq!(of("ORU", "R01", "nonsense").name, "ORU_R01");
}

#[test]
fn notes_are_found_behind_their_segment() {
    let message = message("ORU_R01", "PID OBR:1 NTE:1 NTE:2 OBX:1 NTE:3");
    let tree = message.groups();
    let order = tree.all_named("ORDER_OBSERVATION")[0];
    assert_eq!(order.notes(order.segment("OBR").unwrap()).count(), 2);
    let observation = order.groups_named("OBSERVATION").next().unwrap();
    assert_eq!(observation.notes(observation.segment("OBX").unwrap()).count(), 1);
}

/// The places of the segments on the way to each one: the groups it stands in, outermost first.
fn walk<'g, 'm>(
    group: &'g Group<'m>,
    above: &[&'g Group<'m>],
    visit: &mut impl FnMut(Segment<'m>, &[&'g Group<'m>]),
) {
    let path: Vec<_> = above.iter().copied().chain([group]).collect();
    for segment in &group.segments {
        visit(*segment, &path);
    }
    for inner in &group.groups {
        walk(inner, &path, visit);
    }
}

proptest! {
    #[test]
    fn however_they_are_shuffled_each_keeps_its_parent(
        names in proptest::collection::vec(proptest::sample::select(vec![
            "PID", "PD1", "PV1", "ORC", "OBR", "OBX", "OBX", "OBX", "NTE", "NTE", "SPM", "TQ1", "ZZ1", "AL1", "DG1",
        ]), 0..40),
        structure in proptest::sample::select(vec!["ORU_R01", "ORM_O01", "OML_O21", "VXU_V04", "ADT_A01", "MDM_T02", "OUL_R22"]),
    ) {
        let message = message(structure, &names.join(" "));
        let tree = message.groups();
        let mut groups: Vec<Option<Vec<&Group<'_>>>> = vec![None; message.segments().len()];
        let mut twice = false;
        walk(&tree, &[], &mut |segment, path| twice |= groups[segment.index()].replace(path.to_vec()).is_some());
        prop_assert!(!twice && groups.iter().all(Option::is_some), "each in exactly one group");
        let groups: Vec<Vec<&Group<'_>>> = groups.into_iter().flatten().collect();
        let mut order = None;
        for segment in message.segments() {
            let own = &groups[segment.index()];
            if segment.name() == "NTE" {
                prop_assert!(std::ptr::eq(*own.last().unwrap(), *groups[segment.index() - 1].last().unwrap()), "a note stays with the segment before it");
            }
            let by_order = matches!(structure, "ORU_R01" | "ORM_O01" | "OML_O21");
            match segment.name() {
                "OBR" | "ORC" if by_order => order = own.iter().find(|one| one.name.starts_with("ORDER") && one.name != "ORDERS").copied(),
                "PID" if structure == "ORU_R01" => order = order.filter(|order| own.iter().any(|one| one.groups.iter().any(|inner| std::ptr::eq(inner, *order)))),
                "OBX" if by_order => {
                    if let Some(order) = order {
                        prop_assert!(own.iter().any(|one| std::ptr::eq(*one, order)), "{}: {:?} in {}", structure, segment, show(&tree));
                    }
                }
                _ => {}
            }
        }
    }
}
