//! The message structures that have groups worth knowing.

use super::Spec;

/// The structure for a message type: by MSH-9.3, else by code and event. Unknown ones are flat.
pub fn of(code: &str, event: &str, structure: &str) -> &'static Spec {
    let by_structure = structure.split_once('_').and_then(|(code, event)| known(code, event));
    by_structure.or_else(|| known(code, event)).unwrap_or(&FLAT)
}

fn known(code: &str, event: &str) -> Option<&'static Spec> {
    Some(match (code, event) {
        ("ORU" | "ORF", _) => &ORU,
        ("OUL", "R21") => &ORU,
        ("OUL", "R24") => &OUL_R24,
        ("OUL", _) => &OUL,
        ("OML", "O33" | "O35") | ("ORL", "O34" | "O36") => &SPECIMEN_ORDERS,
        ("ORM" | "OMG" | "OML" | "OMI" | "OMD" | "OMS" | "OMN" | "OMP" | "OMB", _) => &ORDERS,
        ("ORR" | "ORG" | "ORL" | "ORI" | "RRE" | "RRD" | "RRG" | "RRA" | "ORP", _) => &ORDERS,
        ("RDE" | "RDS" | "RAS" | "RGV", _) => &ORDERS,
        ("VXU" | "VXR", _) => &VXU,
        ("SIU" | "SRM" | "SRR", _) => &SIU,
        ("MDM", _) => &MDM,
        ("PPR" | "PGL", _) => &PROBLEMS,
        ("ADT", "A17" | "A24" | "A37" | "A39" | "A40" | "A43" | "A44" | "A45") => &ADT_MANY,
        (
            "ADT",
            "A18" | "A30" | "A34" | "A35" | "A36" | "A41" | "A46" | "A47" | "A48" | "A49" | "A50" | "A51",
        ) => &ADT_MANY,
        ("ADT", _) => &ADT,
        ("BAR", _) => &BAR,
        ("DFT", _) => &DFT,
        ("REF" | "RRI" | "RQA" | "RPA", _) => &REF,
        _ => return None,
    })
}

const EMPTY: Spec = Spec { name: "", opens: &[], members: &[], groups: &[], once: false, after: None };

static FLAT: Spec = Spec { name: "MESSAGE", ..EMPTY };

const HEAD: &[&str] = &["MSH", "SFT", "UAC", "MSA", "ERR", "QRD", "QRF", "QAK", "EVN", "DSC"];

const VISIT: Spec =
    Spec { name: "VISIT", opens: &["PV1"], members: &["PV2", "PRT", "ROL"], once: true, ..EMPTY };

const INSURANCE: Spec =
    Spec { name: "INSURANCE", opens: &["IN1"], members: &["IN2", "IN3", "ROL", "AUT", "RF1"], ..EMPTY };

const PROCEDURE: Spec = Spec { name: "PROCEDURE", opens: &["PR1"], members: &["ROL", "PRT"], ..EMPTY };

const PATIENT_MEMBERS: &[&str] =
    &["PD1", "PRT", "ROL", "NK1", "ARV", "GT1", "AL1", "IAM", "PDA", "DB1", "ACC"];

const PATIENT: Spec = Spec {
    name: "PATIENT",
    opens: &["PID"],
    members: PATIENT_MEMBERS,
    groups: &[VISIT, INSURANCE],
    once: true,
    ..EMPTY
};

const OBSERVATION: Spec =
    Spec { name: "OBSERVATION", opens: &["OBX"], members: &["PRT", "TCD", "SID", "INV"], ..EMPTY };

const TIMING: Spec = Spec { name: "TIMING", opens: &["TQ1"], members: &["TQ2"], ..EMPTY };

const CONTAINER: Spec = Spec { name: "CONTAINER", opens: &["SAC"], members: &["INV"], ..EMPTY };

const SPECIMEN: Spec = Spec {
    name: "SPECIMEN",
    opens: &["SPM"],
    members: &["OBX", "PRT"],
    groups: &[CONTAINER],
    after: Some(("OBX", "OBSERVATION")),
    ..EMPTY
};

const ORDER_OBSERVATION: Spec = Spec {
    name: "ORDER_OBSERVATION",
    opens: &["ORC", "OBR"],
    members: &["PRT", "ROL", "CTD", "FT1", "CTI", "DG1", "DSC"],
    groups: &[TIMING, OBSERVATION, SPECIMEN],
    ..EMPTY
};

static ORU: Spec = Spec {
    name: "ORU_R01",
    members: HEAD,
    groups: &[Spec { name: "PATIENT_RESULT", groups: &[PATIENT, ORDER_OBSERVATION], ..EMPTY }],
    ..EMPTY
};

static OUL: Spec = Spec {
    name: "OUL_R22",
    members: HEAD,
    groups: &[
        PATIENT,
        Spec {
            name: "SPECIMEN",
            opens: &["SPM"],
            members: &["OBX", "PRT"],
            groups: &[
                CONTAINER,
                Spec {
                    name: "ORDER",
                    opens: &["OBR"],
                    members: &["ORC", "PRT", "ROL", "CTI"],
                    groups: &[TIMING, Spec { name: "RESULT", ..OBSERVATION }],
                    ..EMPTY
                },
            ],
            ..EMPTY
        },
    ],
    ..EMPTY
};

/// The order stands first, its specimens in it; ORC follows OBR.
static OUL_R24: Spec = Spec {
    name: "OUL_R24",
    members: HEAD,
    groups: &[
        PATIENT,
        Spec {
            name: "ORDER",
            opens: &["OBR"],
            members: &["ORC", "PRT", "ROL", "CTI"],
            groups: &[
                TIMING,
                Spec { name: "RESULT", ..OBSERVATION },
                Spec { after: Some(("OBX", "RESULT")), ..SPECIMEN },
            ],
            ..EMPTY
        },
    ],
    ..EMPTY
};

/// The specimens stand first, with what is ordered of each.
static SPECIMEN_ORDERS: Spec = Spec {
    name: "OML_O33",
    members: HEAD,
    groups: &[
        PATIENT,
        Spec {
            name: "SPECIMEN",
            opens: &["SPM"],
            members: &["OBX", "PRT"],
            groups: &[CONTAINER, ORDER_OF_SPECIMEN],
            ..EMPTY
        },
    ],
    ..EMPTY
};

const ORDER_OF_SPECIMEN: Spec = Spec {
    name: "ORDER",
    opens: &["ORC", "OBR"],
    members: &["PRT", "ROL", "CTD", "DG1", "FT1", "CTI", "BLG", "TCD"],
    groups: &[TIMING, OBSERVATION],
    ..EMPTY
};

/// An order of any kind: ORC, and the segment that tells what is ordered.
const ORDER: Spec = Spec {
    name: "ORDER",
    opens: &["ORC", "OBR", "RQD", "RQ1", "RXO", "RXE", "RXD", "RXG", "RXA", "ODS", "ODT", "BPO"],
    members: &["PRT", "ROL", "RXR", "RXC", "RXV", "CTD", "DG1", "FT1", "CTI", "BLG", "TCD", "IPC", "CDO"],
    groups: &[TIMING, OBSERVATION, SPECIMEN],
    ..EMPTY
};

static ORDERS: Spec = Spec { name: "ORDERS", members: HEAD, groups: &[PATIENT, ORDER], ..EMPTY };

static VXU: Spec = Spec {
    name: "VXU_V04",
    members: HEAD,
    groups: &[
        Spec { once: true, ..PATIENT },
        Spec {
            name: "ORDER",
            opens: &["ORC", "RXA"],
            members: &["RXR", "PRT"],
            groups: &[TIMING, OBSERVATION],
            ..EMPTY
        },
    ],
    ..EMPTY
};

static SIU: Spec = Spec {
    name: "SIU_S12",
    members: &["MSH", "SFT", "UAC", "MSA", "ERR", "SCH", "ARQ", "APR", "TQ1", "NTE"],
    groups: &[
        Spec {
            name: "PATIENT",
            opens: &["PID"],
            members: &["PD1", "PRT", "NK1", "OBX", "DG1", "AL1", "GT1"],
            groups: &[VISIT, INSURANCE],
            ..EMPTY
        },
        Spec {
            name: "RESOURCES",
            opens: &["RGS"],
            groups: &[
                Spec { name: "SERVICE", opens: &["AIS"], members: &["APR"], ..EMPTY },
                Spec { name: "GENERAL_RESOURCE", opens: &["AIG"], members: &["APR"], ..EMPTY },
                Spec { name: "LOCATION_RESOURCE", opens: &["AIL"], members: &["APR"], ..EMPTY },
                Spec { name: "PERSONNEL_RESOURCE", opens: &["AIP"], members: &["APR"], ..EMPTY },
            ],
            ..EMPTY
        },
    ],
    ..EMPTY
};

const GOAL: Spec = Spec {
    name: "GOAL",
    opens: &["GOL"],
    members: &["VAR", "ROL", "PRT", "PTH"],
    groups: &[OBSERVATION, ORDER],
    ..EMPTY
};

/// Problems and goals: a goal behind a problem is one of it, and the other way about (PGL).
static PROBLEMS: Spec = Spec {
    name: "PPR_PC1",
    members: HEAD,
    groups: &[
        PATIENT,
        Spec {
            name: "PROBLEM",
            opens: &["PRB"],
            members: &["VAR", "ROL", "PRT", "PTH"],
            groups: &[OBSERVATION, ORDER, GOAL],
            ..EMPTY
        },
        Spec {
            name: "GOAL",
            opens: &["GOL"],
            members: &["VAR", "ROL", "PRT", "PTH"],
            groups: &[OBSERVATION, ORDER],
            ..EMPTY
        },
    ],
    ..EMPTY
};

static MDM: Spec = Spec {
    name: "MDM_T02",
    members: &["MSH", "SFT", "UAC", "EVN", "PID", "PRT", "PV1", "PV2", "TXA", "CON"],
    groups: &[
        Spec { name: "COMMON_ORDER", opens: &["ORC", "OBR"], groups: &[TIMING], ..EMPTY },
        Spec { name: "OBSERVATION", opens: &["OBX"], ..EMPTY },
    ],
    ..EMPTY
};

static ADT: Spec = Spec {
    name: "ADT_A01",
    members: &[
        "MSH", "SFT", "UAC", "EVN", "PID", "PD1", "ARV", "ROL", "PRT", "NK1", "MRG", "PV1", "PV2", "DB1",
        "OBX", "AL1", "IAM", "DG1", "DRG", "GT1", "ACC", "UB1", "UB2", "PDA", "NPU",
    ],
    groups: &[PROCEDURE, INSURANCE],
    ..EMPTY
};

/// Swaps, links and merges: several patients in one message.
static ADT_MANY: Spec = Spec {
    name: "ADT_A39",
    members: &["MSH", "SFT", "UAC", "EVN", "NPU"],
    groups: &[Spec {
        name: "PATIENT",
        opens: &["PID"],
        members: &["PD1", "ARV", "MRG", "PV1", "PV2", "DB1", "OBX", "NK1", "AL1"],
        ..EMPTY
    }],
    ..EMPTY
};

static BAR: Spec = Spec {
    name: "BAR_P01",
    members: &["MSH", "SFT", "UAC", "EVN", "PID", "PD1", "ROL", "PRT"],
    groups: &[Spec {
        name: "VISIT",
        opens: &["PV1"],
        members: &["PV2", "ROL", "PRT", "DB1", "OBX", "AL1", "DG1", "DRG", "GT1", "NK1", "ACC", "UB1", "UB2"],
        groups: &[PROCEDURE, INSURANCE],
        ..EMPTY
    }],
    ..EMPTY
};

static DFT: Spec = Spec {
    name: "DFT_P03",
    members: &[
        "MSH", "SFT", "UAC", "EVN", "PID", "PD1", "ROL", "PRT", "PV1", "PV2", "DB1", "DG1", "DRG", "GT1",
        "ACC", "OBX",
    ],
    groups: &[
        Spec { name: "COMMON_ORDER", opens: &["ORC", "OBR"], groups: &[TIMING, OBSERVATION], ..EMPTY },
        Spec { name: "FINANCIAL", opens: &["FT1"], members: &["DG1", "DRG"], groups: &[PROCEDURE], ..EMPTY },
        INSURANCE,
    ],
    ..EMPTY
};

static REF: Spec = Spec {
    name: "REF_I12",
    members: &[
        "MSH", "SFT", "UAC", "MSA", "RF1", "PID", "PD1", "NK1", "GT1", "ACC", "DG1", "DRG", "AL1", "PV1",
        "PV2", "ARV",
    ],
    groups: &[
        Spec { name: "AUTHORIZATION", opens: &["AUT"], members: &["CTD"], once: true, ..EMPTY },
        Spec { name: "PROVIDER_CONTACT", opens: &["PRD"], members: &["CTD"], ..EMPTY },
        INSURANCE,
        PROCEDURE,
        Spec {
            name: "OBSERVATION",
            opens: &["OBR"],
            groups: &[Spec { name: "RESULTS", ..OBSERVATION }],
            ..EMPTY
        },
    ],
    ..EMPTY
};
