"use strict";
(async () => {
  const $ = (id) => document.getElementById(id);
  const message = (text) => { $("viewer").hidden = true; $("viewer-message").hidden = false; $("viewer-message").textContent = text; };
  const chosen = (name) => document.querySelector(`input[name="${name}"]:checked`).value;
  const scene = JSON.parse($("scene").textContent);

  if (!document.createElement("canvas").getContext("webgl2")) {
    message("This browser offers no WebGL 2, which the viewer needs. The overview below shows the same result as a picture.");
    return;
  }
  $("viewer").hidden = false;
  const viewer = new niivue.Niivue({
    backColor: [0, 0, 0, 1], crosshairColor: [0.95, 0.85, 0.35, 0.8], crosshairWidth: 0.4, crosshairGap: 8, crosshairWidthUnit: "mm",
    isRadiologicalConvention: true, sagittalNoseLeft: true, isSliceMM: true, show3Dcrosshair: false, multiplanarShowRender: 0,
    dragAndDropEnabled: false, viewModeHotKey: "", clipPlaneHotKey: "", cycleClipPlaneHotKey: "", loadingText: "", scrollRequiresFocus: true,
    fontMinPx: 12, fontSizeScaling: 0.3, logLevel: "error", tileMargin: 4, sliceType: 0,
  });
  const resize = viewer.resizeListener.bind(viewer);
  viewer.resizeListener = () => { if ($("canvas").offsetWidth && $("canvas").offsetHeight) resize(); };  // none in print
  await viewer.attachToCanvas($("canvas"));
  const load = (base64, name, more) => niivue.NVImage.loadFromBase64({ base64, name, ...more });
  viewer.addVolume(await load(scene.ct, "ct.nii.gz", { colormap: "gray", cal_min: scene.window[0], cal_max: scene.window[1], trustCalMinMax: false }));
  const labels = await load(scene.labels, "labels.nii.gz", { cal_min: 0, cal_max: 3 });
  labels.setColormapLabel(scene.colours);
  viewer.addVolume(labels);
  const ct = viewer.volumes[0];

  const slider = $("slice");
  const AXIS = [2, 1, 0, 2];  // of the slider, for axial, coronal, sagittal, all three
  const NAMES = ["x", "y", "z"];
  const axis = () => AXIS[Number(chosen("plane"))];
  const count = () => ct.dimsRAS[axis() + 1];

  const opacity = () => viewer.setOpacity(1, $("show-labels").checked ? $("opacity").value / 100 : 0);
  const show = () => {
    const at = viewer.scene.crosshairPos, mm = viewer.frac2mm(at), n = count();
    const index = Math.min(n, Math.floor(at[axis()] * n) + 1);
    const [i, j, k] = viewer.frac2vox(at);
    const hu = ct.getValue(i, j, k), label = Math.round(labels.getValue(i, j, k));
    const minus = (x, digits) => x.toFixed(digits).replace("-", "\u2212");
    slider.max = n;
    slider.value = index;
    slider.setAttribute("aria-valuetext", `slice ${index} of ${n}`);
    $("readout").textContent = `${index} of ${n} · ${NAMES[axis()]} ${minus(mm[axis()], 1)} mm · ${minus(hu, 0)} HU${label ? ` · ${scene.colours.labels[label]}` : ""}`;
  };
  const moveTo = (mm) => { viewer.scene.crosshairPos = viewer.mm2frac(mm); viewer.drawScene(); show(); };

  document.querySelectorAll('input[name="plane"]').forEach((input) => input.addEventListener("change", () => {
    viewer.setSliceType(Number(input.value));
    show();
  }));
  document.querySelectorAll('input[name="window"]').forEach((input) => input.addEventListener("change", () => {
    const [width, level] = input.value.split(",").map(Number);
    ct.cal_min = level - width / 2;
    ct.cal_max = level + width / 2;
    viewer.updateGLVolume();
  }));
  slider.addEventListener("input", () => {
    viewer.scene.crosshairPos[axis()] = (Number(slider.value) - 0.5) / count();
    viewer.drawScene();
    show();
  });
  $("opacity").addEventListener("input", opacity);
  $("show-labels").addEventListener("change", opacity);
  document.querySelectorAll("button[data-point]").forEach((button) => button.addEventListener("click", () => {
    moveTo(JSON.parse(button.dataset.point));
    $("viewer-title").scrollIntoView({ block: "start" });
    $("canvas").focus({ preventScroll: true });
  }));
  viewer.onLocationChange = show;
  opacity();
  if (scene.start) moveTo(scene.start); else show();
  document.body.dataset.viewer = "ready";
})().catch((error) => {
  const place = document.getElementById("viewer-message");
  document.getElementById("viewer").hidden = true;
  place.hidden = false;
  place.textContent = "The viewer could not start. The overview below shows the same result as a picture.";
  throw error;
});
