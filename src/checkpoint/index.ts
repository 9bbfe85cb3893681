/** Frozen guests: templates that new sandboxes start from. */
export type { TemplateState } from "./template-state.ts";
export { type TemplateInfo, Templates, type TemplatesDeps } from "./templates.ts";
