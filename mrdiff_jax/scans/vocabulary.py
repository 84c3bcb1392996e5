"""The words of descriptions of series, in the languages and by the names of vendors, and what each means."""

from enum import Enum, auto


class Meaning(Enum):
    """What a word says of a scan."""

    T1 = auto()
    T2 = auto()
    PD = auto()
    FLAIR = auto()
    T2_STAR = auto()
    DUAL_ECHO = auto()
    GRADIENT_T1 = auto()  # sequences that are made T1-weighted
    REFORMAT = auto()  # 'mpr' is Siemens' short name of MP-RAGE, too
    GRADIENT = auto()
    INVERSION = auto()
    FAT_SATURATED = auto()
    FAT = auto()  # or water: saturated, or alone in the image?
    DIXON = auto()
    PERHAPS_PART = auto()  # of a Dixon scan: 'T1 OP' may be its opposed phase
    MULTI_ECHO = auto()  # one of many echoes, or a map's
    AGENT = auto()  # the contrast agent, or that it was given
    AFTER = auto()
    BEFORE = auto()
    NATIVE = auto()
    WITHOUT = auto()
    WITH = auto()
    PERHAPS_AGENT = auto()  # 'T1 C' may be coronal
    FREE = auto()  # after the word for agent: without it
    EITHER = auto()  # '+/-'
    DASH = auto()  # before or after the word for agent: a minus, or a dash?
    PLACE = auto()  # 'post fossa' is the posterior one
    OCCASION = auto()  # 'post week 2' is a visit
    OPERATION = auto()  # 'post op' says nothing of agent
    TIRM = auto()  # Siemens' inversion recoveries: STIR, FLAIR or T1 FLAIR
    FILLER = auto()  # also as a part of what is written together
    NEUTRAL = auto()  # only as a word of its own


_WORDS = {
    Meaning.T1: "t1 t1w t1wi t1gew",
    Meaning.T2: "t2 t2w t2wi t2gew",
    Meaning.PD: "pd pdw pdwi dp proton protonen protons",
    Meaning.FLAIR: "flair darkfluid",
    Meaning.T2_STAR: "t2star t2s t2stern",
    Meaning.GRADIENT_T1: "mprage rage spgr fspgr bravo",
    Meaning.REFORMAT: "mpr",
    Meaning.GRADIENT: (
        "gre eg gradient gradienten gradiente grad ge sge spoiled ffe mffe tffe tfe me2d me3d ci3d de3d fi2d fi3d medic merge "
        "hemo haemo heme "
        "hem hemorrhage haemorrhage hemosiderin "
        "blut blutung blutungen bleed microbleed microbleeds blood fl2d "
        "fl3d fl flash fgre efgre mpgr vibe lava thrive ethrive fisp trufi trufisp truefisp cosmic presto grase "
        "fiesta ciss dess psif ssfp bssfp bffe btfe "
        "balanced grass fe fe2d fe3d"
    ),
    Meaning.INVERSION: "ir irprep inversion recovery",
    Meaning.FAT_SATURATED: (
        "fs fatsat fatsaturated fatsaturation fatsup fatsuppressed fatsuppression spair spir stir chess we wats "
        "fettsat fettgesattigt fettsattigung fettsupprimiert fettunterdruckung vetsat vetsuppressie vetonderdrukking aspir "
        "proset"
    ),
    Meaning.FAT: "fat fett grasa graisse grasso vet fatonly fettbild fatimage water wasser eau agua",
    Meaning.DIXON: "dixon mdixon ideal flex dxn wfi",
    Meaning.PERHAPS_PART: "op ip oop f io",
    Meaning.MULTI_ECHO: "me mc mems mcse msme cpmg multite mte",
    Meaning.AGENT: (
        "contrast contraste contrasto contrasted contrasting kontrastu kontrastem "
        "kontrascie kontraszt kontrasztanyag kontrast kontrastmittel kontrastmiddel kontrastverstarkt kontrastverst "
        "contrastmiddel contrastmedium contrastmittel contr kontr cte gd gad gado gadolinium gadolinio gadolinum gdc km cm "
        "mdc pdc civ gbca ce enhanced enhancement inj injected injection injecte injectee inject injektion iniezione "
        "inyeccion inyectado injectie injecao dtpa dota bopta bolus ivkm kl tehoste contrastado contrastee ferumoxytol feraheme"
    ),
    Meaning.AFTER: (
        "post pos postcon nach after apres despues tras dopo depois apos delayed delay late tardif tardive tardio venous "
        "spat spaet po dupa nakon poslije jalkeen sonrasi sonra postgd venos arterial portal poi efter etter afterc"
    ),
    Meaning.BEFORE: "pre prae vor before avant antes prima voor fore innan przed pred prije oncesi ennen elott inainte",
    Meaning.NATIVE: (
        "native nativ natif nativo nativa nativt unenhanced unenh unverstarkt plain blanco nc nce noncon basale basal diretta "
        "diretto"
    ),
    Meaning.WITHOUT: (
        "without wo wout no non not nicht sans sine ohne kein keine sin zonder senza sem uden utan uten bez none minus un nie "
        "fara ilman"
    ),
    Meaning.WITH: "with mit avec con met com med cu",
    Meaning.PERHAPS_AGENT: "c k g iv pc pi na ml cc mmol timed plus",
    Meaning.FREE: "free los frei siz vrij fri neg negative negativ",
    Meaning.DASH: "dash",
    Meaning.EITHER: "unclear either oder or ou evtl ggf optional possible poss",
    Meaning.TIRM: "tirm tir",
    Meaning.FILLER: (
        "w wi wt weighted gewichtet ponderado pondere ponderee pesata ax axi axial axiale axiaal assiale axials tra trans "
        "transv transversal transversaal cor coronal coronale coronaal koronar sag sagital sagitale sagittal obl oblique iso "
        "se tse fse ftse frfse sefse tfl space spc cube vista brain head neck spine mm ns ms propeller blade multivane mvxd "
        "hires hr fast turbo spin echo echos haste ssfse thin thick whole isotropic dark fluid de of des du la le el del di "
        "der dem the any und and et en y l ein eine agent agente media medium mittel gabe d ed"
    ),
    Meaning.PLACE: (
        "hippo hippocampus hippocampal hippocampi temporal frontal lobe lobes cerebellum sella sellar sinus sinuses ear ears "
        "eye eyes bone posterior anterior ant fossa brainstem stem columna colonne cord myelon body prostate knee knie hip "
        "shoulder wrist ankle foot hand elbow femur thigh leg legs arm face facial base basis left right li re lt links "
        "rechts upper lower mid middle tumor tumour tumors lesion lesions mets metastases metastasis horn wall cavity limb"
    ),
    Meaning.OCCASION: (
        "visit day days tag tage month months monat monate monaten mois mesi maand maanden year years jahr jahre jahren ans "
        "week weeks woche wochen semaine semaines settimane followup baseline test scan study studie exam session "
        "seizure fu verlauf"
    ),
    Meaning.OPERATION: (
        "postop preop praop operative operativ operation operatie operazione operacion intervention eingriff treatment "
        "therapy therapie terapia traitement tratamiento behandlung tx rt xrt surgery surg surgical chir chirurgie chirurgia "
        "cirugia biopsy biopsie biopsia resection resektion crani craniotomy laminectomy chemo chemotherapy chimio radiation "
        "radio radiotherapy radiotherapie radioterapia radiosurgery bestrahlung strahlentherapie srs sbrt gk gamma "
        "gammaknife cyberknife knife ablation embolization embo coiling shunt dbs lp tpa partum trauma traumatic stroke "
        "ictal ictally"
    ),
    Meaning.NEUTRAL: (
        "oax osag ocor neuronavigation "
        "density densite densidad dichte intensity longtr longte axis axl transaxial transverse transversale transvers "
        "sagittale saggital sagitt coro korona obliq oblq dbl straight tilted angled acpc ap pa lr rl hf fh is si neuro "
        "cerebral cerebrum cranial cranium skull kopf schadel schaedel hirn gehirn hals tete crane cerveau craneo craneal "
        "cerebro cabeza testa encefalo encefalico cranio hoofd hersenen pituitary hypophyse hypophysis iac iacs orbit orbits "
        "orbita optic nerve nerves nasal paranasal cspine tspine lspine cervical thoracic thorax lumbar lumbosacral sacral "
        "sacrum ws hws bws lws wirbelsaule rachis spinal abdomen abdominal liver pelvis pelvic becken breast heart kidney "
        "skullbase entire full complete wb wholebrain headneck hn glioma gbm lgg hgg epilepsy epilepsie dementia demenz "
        "navigation navi neuronavi stealth brainlab planning screening routine standard std basic protocol prot program "
        "sequence seq series serie scans image images img volume volumes vol slab slabs slice slices sl sli stack part acq "
        "rec acquisition scanner mri mr nmr tgse fir rse xl frf ssh sshtse ss single shot singleshot mp rms vfl vfa flip "
        "angle prep prepared restore rst drive driven equilibrium view isoview brainview mview mxv multi multislice ultra "
        "ultrafast long short jet radial cartesian spiral arms rmc moco motion corrected correction correct corr navigated "
        "nav vnav pmc navigator respiratory resp trig triggered trigger gated gating ecg bh breath breathhold hold breathing "
        "fb sense grappa caipi caipirinha pat ipat asset arc tpat csense compressed cs compsense accelerated accel acc smart "
        "speed hypersense hyper hyperband wave air recon reconstruction reco deep learning airdl dl dr drb drs boost swift "
        "sharp ai aice aipure adaptive combine clear scic pure prescan normalize normalized normalised normalization norm nd "
        "ndis dis dis2d dis3d dc distortion filt filter filtered unfiltered interp interpolated zip zipped ti te tr nex nsa "
        "avg ave averages etl bw hbw lbw fov fovs rfov mtx matrix thk thickness gap gaps skip nogap contiguous interleaved "
        "interleave ch channel channels coil coils rf hnp tim rr sat satband sats band bands fc flow comp compensated fcomp "
        "nsel nonsel nonselective sel selective pf partial fourier os oversampling npw nowrap wrap khz hz deg mag magn "
        "magnitude modulus opt optimized optimised mod modified modif new neu old alt ver version rev final orig original "
        "repeat repeated rpt rep wdh wdhl wiederholung again redo bis extra add additional zusatz copy kopie rerun retry "
        "take second first third st rd th quick rapid express urgent emergency notfall kids kid ped peds pediatric paed "
        "child kinder adult baby neonate neonatal infant sedation uncoop uncooperative unruhig schnell kurz lang dick dunn "
        "duenn schicht schichten dunnschicht hochauflosend fein fine grob highres highresolution hirez hi res resolution "
        "lowres low high hd uhr ultrahigh submm submillimeter coupe coupes epaisse fin fins cortes alta resolucion tesla "
        "siemens philips canon toshiba hitachi skyra prisma verio trio aera avanto vida sola altea lumina ingenia achieva "
        "elition ambition signa discovery premier artist adni go ac ukb biobank abcd hcp wip wips research clinical oasis "
        "nacc fastmri fbk tcga brats ixi ppmi camcan abide aibl nifd lifespan connectome cmrr mgh mni nyu qc site subj "
        "subject patient patients pt id case anon anonymized raw reg coreg registered coregistered stripped skullstripped "
        "bet defaced deface resampled nii gz dcm dicom anat anatomy anatomical structural struct struc structure morph desc "
        "run ses for from to at by on in only all both sides incl inkl include included including via per each through thru "
        "over"
    ),
}
AGENT_NAMES = (  # beside those that begin with gado
    "dotarem",
    "magnevist",
    "prohance",
    "multihance",
    "clariscan",
    "omniscan",
    "primovist",
    "eovist",
    "ablavar",
    "vasovist",
    "optimark",
    "elucirem",
    "vueway",
    "artirem",
    "pixxoscan",
    "dotagita",
    "cyclolux",
    "magnegita",
    "dotagraf",
    "dotaspin",
    "magnetolux",
    "magnescope",
    "magnograf",
    "omnigraf",
    "resovist",
    "supravist",
    "endorem",
    "feridex",
    "sinerem",
    "combidex",
    "teslascan",
    "vivagado",
)
PHRASES: dict[tuple[str, ...], Meaning | str] = {
    ("mp", "rage"): Meaning.GRADIENT_T1,
    ("turbo", "flash"): Meaning.GRADIENT,
    ("dark", "fluid"): Meaning.FLAIR,
    ("da", "fl"): Meaning.FLAIR,
    ("dark", "fl"): Meaning.FLAIR,
    ("darkfl",): Meaning.FLAIR,
    **{
        (fluid, suppressed): Meaning.FLAIR
        for fluid in ("fluid", "csf", "liquor")
        for suppressed in ("suppressed", "suppression", "sup", "supp", "nulled", "attenuated", "unterdruckt", "unterdruckung")
    },
    **{
        (fat, suppressed): Meaning.FAT_SATURATED
        for fat in ("fat", "fett", "graisse", "grasa", "grasso", "vet")
        for suppressed in ("suppressed", "suppression", "sup", "supp", "saturated", "saturation", "sat")
    },
    ("water", "excitation"): Meaning.FAT_SATURATED,
    ("deep", "resolve"): Meaning.FILLER,
    ("non", "selective"): Meaning.FILLER,
    ("free", "breathing"): Meaning.FILLER,
    ("multi", "echo"): "a multi-echo image",
    ("t2", "star"): Meaning.T2_STAR,
    ("t2w", "star"): Meaning.T2_STAR,
    **{(first, second): Meaning.DUAL_ECHO for first in ("double", "dual") for second in ("tse", "fse", "echo", "se")},
    ("doubletse",): Meaning.DUAL_ECHO,
    ("dualecho",): Meaning.DUAL_ECHO,
    **{("pre", planning): Meaning.FILLER for planning in ("stealth", "navigation", "brainlab")},
    **{("post", planning): Meaning.EITHER for planning in ("stealth", "navigation", "brainlab")},
    ("multi", "te"): Meaning.MULTI_ECHO,
}
_OTHER_KINDS = {  # images that are none of the contrasts, whatever else their description says
    "a localiser": (
        "loc localizer localiser localizador localisateur lokalizer lokalisator scout survey topogram planscan smartbrain "
        "aascout aahead plane pilot"
    ),
    "a diffusion image": (
        "dwi dti diff diffusion diffusie diffusione difusion adc adcs dadc eadc trace tracew tensor fa colfa ivim dki "
        "noddi dwibs b0 b500 b800 b1000 apparent"
    ),
    "a perfusion or dynamic image": (
        "perf perfusion perfusie dsc dce asl pcasl pasl cbf cbv rcbf rcbv mtt ttp tmax ktrans pwi dynamic dyn dynamisch "
        "dynamique"
    ),
    "a susceptibility image": "swi swip swan susc susceptibility suszeptibilitat qsm venobold esw",
    "an angiogram": (
        "tof mra mrv angio angiography angiographie angiografie cemra pcmra mrangio venogram venographie qiss trance inhance"
    ),
    "a projection or reformat": (
        "mip mips minip mnip reformat reformats reformatted rfmt projection projections collection collage vrt curved"
    ),
    "a map": (
        "map maps myomaps mapping mapit t1map t2map r2 r2s r2star relax relaxometry relaxometrie molli shmolli rho t1rho t2rho "
        "karte mapa carte cartographie quant quantitative"
    ),
    "a part of an MP2RAGE": "mp2rage inv1 inv2 inv uni uniden",
    "a phase, real or imaginary image": (
        "psir out inout phase phasen fase pha phs inphase outphase opphase opp opposed outofphase real "
        "realteil imag imaginary velocity "
        "venc cine"
    ),
    "a subtraction": "sub subs subtraction subtract subtracted subtr subtraktion subtracao sustraccion soustraction",
    "a synthetic image": "syn synth synthetic symri magic",
    "an echo-planar image": "epi ep2d bold fmri rest resting task",
    "a field map or calibration": "fieldmap field fmap b1 shim shimming cal calib calibration calibracion",
    "a magnetisation-transfer image": "mt mtc mtr mton mtoff ihmt cest apt",
    "spectroscopy": "mrs svs csi press spectroscopy spectro spektroskopie",
    "a double inversion recovery": "dir",
    "a multi-echo image": "mese multiecho multiechos",
    "a T2-prepared image": "t2prep",
    "a derived image": (
        "derived processing processed postprocessed proc screenshot screensave report ratio average avgs mean starmap isodwi "
        "calculated calc computed fit fitted mask masked masks seg segmentation segmented label labels color colour colored "
        "farbe overlay fused fusion"
    ),
}
MEANINGS: dict[str, Meaning | str] = {word: meaning for meaning, words in _WORDS.items() for word in words.split()}
MEANINGS |= {word: kind for kind, words in _OTHER_KINDS.items() for word in words.split()}
ANCHORS = {Meaning.T1, Meaning.T2, Meaning.PD, Meaning.FLAIR, Meaning.T2_STAR, Meaning.GRADIENT_T1}
EMBEDDED = ("kontrastmittel", "contrast", "kontrast", "gadolin", "gado", "injekt", "inject", "mprage", "flair", "darkfluid")
