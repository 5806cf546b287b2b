/**
 * Methods that are not supported: whiteboard, documents, drawing. An app that calls them goes on:
 * it gets a failure that the original documents as well.
 */
import type * as api from '../types/knowledgetalk';
import { failure } from './errors';

const nothing = (): void => undefined;
const no = (): boolean => false;
const noLater = async (): Promise<boolean> => false;
const result = async (): Promise<api.Result> =>
  failure(
    '405',
    'Whiteboard, documents and drawing are not offered.',
    'Share a screen instead: screenStart(stream).',
  );

const methods = {
  whiteBoardStart: noLater,
  drawingClassStart: noLater,
  drawingClassStop: noLater,
  drawingShareStart: noLater,
  drawingShareStop: noLater,
  documentStart: result,
  documentShare: result,
  reqCanvasImage: result,
  drawingInit: no,
  drawingStop: no,
  canvasInit: nothing,
  setTool: nothing,
  canvasClear: nothing,
};

export type Absent = Pick<api.Knowledgetalk, keyof typeof methods>;

export function addAbsent(prototype: object): void {
  for (const [name, answer] of Object.entries(methods)) {
    const value = () => (console.warn(`Ieum: ${name} is not offered.`), answer());
    Object.defineProperty(prototype, name, { value, configurable: true, writable: true });
  }
}
